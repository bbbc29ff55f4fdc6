//! See `tekton_wrap::fuzzing::registry`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    tekton_wrap::fuzzing::registry(bytes);
});
