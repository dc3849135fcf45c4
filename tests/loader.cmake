# tests of loader/: unit_test() and fuzz_target() lines

# plan
unit_test(permutation penstock_plan m)
unit_test(plan penstock_plan)
unit_test(window_walk penstock_plan)
unit_test(source penstock_source Threads::Threads)
unit_test(source_refused penstock_source)
unit_test(chunk_file penstock_store)
unit_test(store penstock_store Threads::Threads)
unit_test(store_manage penstock_store Threads::Threads)

# index
unit_test(tar penstock_index)
unit_test(dataset penstock_index)
unit_test(index penstock_index)
unit_test(index_store penstock_index)
unit_test(index_tar penstock_index)
add_executable(indexdump tools/indexdump.c) # used by python/test_index_listing.py
target_link_libraries(indexdump PRIVATE penstock_index penstock_flags)
fuzz_target(tar penstock_index)
fuzz_target(index penstock_index)

# prepared
unit_test(prepared penstock_prepared Threads::Threads)

# daemon
unit_test(request penstock_loader)
unit_test(wait_window penstock_loader)
unit_test(pipeline penstock_loader penstock_client_static jpeg_samples)
fuzz_target(request penstock_loader)

# remote
add_executable(remotetool tools/remotetool.c) # used by python/test_remote.py
target_link_libraries(remotetool PRIVATE penstock_remote penstock_base penstock_flags)
unit_test(s3_address penstock_remote penstock_base)
unit_test(s3_answer penstock_remote penstock_base)
fuzz_target(s3_answer penstock_remote penstock_base)
