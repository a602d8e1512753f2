//! What is generated from the contract in `proto/` is what the contract says.
//!
//! `protox` compiles the files, so that nobody needs `protoc`; a build of the crate needs neither.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;

use prost::Message as _;

const FILES: [&str; 5] = [
    "mainstay/v1/config.proto",
    "mainstay/v1/lock.proto",
    "mainstay/v1/registry.proto",
    "mainstay/v1/rules.proto",
    "mainstay/v1/stream.proto",
];

/// Compares `got` with the file at `path`; writes the file when `UPDATE_GOLDEN` is set.
#[track_caller]
fn check(path: &Path, got: &[u8]) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        return fs::write(path, got).expect("the golden file can be written");
    }
    let want = fs::read(path).unwrap_or_default();
    assert!(
        want == got,
        "{} is not what the contract comes to; look at what changed, then run with UPDATE_GOLDEN=1",
        path.display()
    );
}

#[test]
fn types_and_description_are_those_of_the_contract() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let proto = home.join("proto");
    let mut here: Vec<String> = fs::read_dir(proto.join("mainstay/v1"))
        .unwrap()
        .map(|file| format!("mainstay/v1/{}", file.unwrap().file_name().to_str().unwrap()))
        .collect();
    here.sort();
    assert_eq!(here, FILES, "a file is not compiled");
    let mut files = protox::compile(FILES, [&proto]).unwrap();
    let out = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // Maps in order, so that a message is the same bytes each time.
    tonic_prost_build::configure()
        .btree_map(".")
        .build_transport(false)
        // They hold secrets: `grpc.rs` says what is shown of them.
        .skip_debug(
            ["SessionCredential", "ConfigItem", "ConfigItemPut"]
                .map(|of| format!("mainstay.v1.{of}")),
        )
        .out_dir(out)
        .compile_fds(files.clone())
        .unwrap();
    check(&home.join("src/grpc/v1.rs"), &fs::read(out.join("mainstay.v1.rs")).unwrap());
    // Where something stands in a file is nobody's business at run time.
    for file in &mut files.file {
        file.source_code_info = None;
    }
    check(&home.join("src/grpc/v1.bin"), &files.encode_to_vec());
}
