# tests of ipc/: unit_test() and fuzz_target() lines
