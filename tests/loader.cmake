# tests of loader/: unit_test() and fuzz_target() lines

# plan
unit_test(permutation penstock_plan m)
unit_test(plan penstock_plan)
unit_test(source penstock_source Threads::Threads)

# index
unit_test(tar penstock_index)
unit_test(dataset penstock_index)
unit_test(index penstock_index)
fuzz_target(tar penstock_index)
fuzz_target(index penstock_index)
