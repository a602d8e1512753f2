//! What the disk does by itself.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often a second 4 KiB can be appended and synced.
pub fn syncs(path: &Path, span: Duration) -> f64 {
    let mut file = File::create(path).expect("the probe can be made");
    let (began, mut count) = (Instant::now(), 0u32);
    while began.elapsed() < span {
        file.write_all(&[7; 4_096]).expect("the probe can be written");
        file.sync_data().expect("the probe can be synced");
        count += 1;
    }
    let rate = f64::from(count) / began.elapsed().as_secs_f64();
    drop(file);
    std::fs::remove_file(path).expect("the probe can be removed");
    rate
}
