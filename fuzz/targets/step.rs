//! See `tekton_wrap::fuzzing::step`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    tekton_wrap::fuzzing::step(bytes);
});
