//! A disk that can be full: a small file system of its own, which needs the right to mount.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system of a few megabytes, gone with the test.
#[derive(Debug)]
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// Nothing where mounting is not permitted, which is said.
    pub(crate) fn mount(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let disk = Self(at.to_owned());
        let is_mounted = disk.run(&["-t", "tmpfs", "-o", size, "tmpfs"]);
        if !is_mounted {
            // Past the harness, which keeps to itself what is printed by tests that pass.
            let mut past = std::io::stderr();
            writeln!(past, "SKIPPED a full disk: mounting is not permitted here").unwrap();
        }
        is_mounted.then_some(disk)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn grow(&self, size: &str) {
        assert!(self.run(&["-o", &format!("remount,{size}")]), "it was mounted before");
    }

    /// Takes all that is left of it.
    pub(crate) fn fill(&self) {
        let mut ballast = File::create(self.ballast()).unwrap();
        for part in [1 << 16, 1 << 12, 1] {
            while ballast.write(&vec![0; part]).is_ok_and(|written| written == part) {}
        }
    }

    /// Gives back what was taken.
    pub(crate) fn empty(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    fn run(&self, arguments: &[&str]) -> bool {
        let status = Command::new("mount").args(arguments).arg(&self.0).status();
        status.is_ok_and(|status| status.success())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}
