#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| minik8s_properties::try_on("patch", data));
