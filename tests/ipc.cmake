# tests of ipc/ and of clients/c: unit_test() and fuzz_target() lines
unit_test(message penstock_ipc)
unit_test(region penstock_ipc)
unit_test(ring penstock_ipc Threads::Threads)
unit_test(penstock_client penstock_client_static Threads::Threads)
fuzz_target(message penstock_ipc)
fuzz_target(ring penstock_client_static)
