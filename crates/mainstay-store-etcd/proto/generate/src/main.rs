//! Writes `src/stub.rs` of mainstay-store-etcd from `etcd.proto`.
//!
//! `protox` compiles the file, so that nobody needs `protoc`; building the crate itself needs
//! neither of them.

use std::error::Error;
use std::fs;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("a folder above this one")?;
    let out = std::env::temp_dir().join(format!("etcd-stub-{}", std::process::id()));
    fs::create_dir_all(&out)?;
    let files = protox::compile(["etcd.proto"], [proto])?;
    tonic_prost_build::configure()
        .build_server(false)
        .build_client(false)
        .bytes(".")
        .out_dir(&out)
        .compile_fds(files)?;
    let stub = fs::read_to_string(out.join("etcdserverpb.rs"))?;
    fs::write(proto.join("../src/stub.rs"), stub)?;
    Ok(fs::remove_dir_all(&out)?)
}
