# tests of loader/: unit_test() and fuzz_target() lines
