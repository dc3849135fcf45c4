# tests of decode/: unit_test() and fuzz_target() lines
