//! Whether a restore fills most of the room that a volume has: then little is left for what the task writes.

use std::{fs, path::Path};

use super::tree::Dir;
use crate::{quote::Line, units::size};

/// A warning is due beyond so many percent.
const MOST: u64 = 80;

/// File systems in memory, as an emptyDir with `medium: Memory` is one (Linux: TMPFS_MAGIC).
const TMPFS: u64 = 0x0102_1994;

/// Where the kernel says how much memory the container may use (Linux: cgroup-v2.rst, cgroup-v1/memory.rst).
const MEMORY_LIMITS: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// The room of a volume before anything is restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Free bytes.
    bytes: u64,
    /// Whether it is memory, of which the container has no more.
    in_memory: bool,
}

impl Room {
    /// The room of the volume that the directory `root` is on, as far as it can be seen.
    pub fn of(root: &Path) -> Option<Self> {
        let dir = Dir::open_root(root).ok()?;
        let volume = rustix::fs::fstatvfs(&dir).ok().filter(|volume| volume.f_blocks > 0)?;
        let in_memory = u64::try_from(rustix::fs::fstatfs(&dir).ok()?.f_type).is_ok_and(|kind| kind == TMPFS);
        let free = volume.f_bavail.saturating_mul(volume.f_frsize);
        let limit = MEMORY_LIMITS.iter().find_map(|file| fs::read_to_string(file).ok()).filter(|_| in_memory);
        // Without a limit it is a word.
        let limit = limit.and_then(|limit| limit.trim().parse().ok()).unwrap_or(u64::MAX);
        Some(Self { bytes: free.min(limit), in_memory })
    }

    /// The percentage that `bytes` take of it, if that is much.
    fn filled(&self, bytes: u64) -> Option<u64> {
        let percent = bytes.saturating_mul(100).checked_div(self.bytes)?;
        (percent > MOST).then_some(percent)
    }

    /// Warns if a restore of `bytes` into the workspace `name` has filled most of it.
    pub fn warn_if_filled(&self, name: &str, bytes: u64) {
        let Some(percent) = self.filled(bytes) else { return };
        let (restored, free) = (size(bytes), size(self.bytes));
        let consequence = if self.in_memory {
            "beyond that the container is killed: give the workspace more with param size, and the first step as much memory"
        } else {
            "a pod on a full node is evicted: let the pod come to a node that has enough with param size"
        };
        let name = Line(name);
        tracing::warn!(
            event = "nearly_full",
            percent,
            "{name}: the restored files ({restored}) take {percent} % of the {free} that its volume had free; {consequence}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_due_beyond_four_fifths() {
        let room = Room { bytes: 1000, in_memory: false };
        for (bytes, percent) in [(0, None), (800, None), (809, None), (810, Some(81)), (2000, Some(200))] {
            assert_eq!(room.filled(bytes), percent, "{bytes}");
        }
        assert_eq!(Room { bytes: 0, in_memory: false }.filled(1), None);
    }

    #[test]
    fn a_volume_in_memory_is_seen() {
        // Every Linux has it.
        assert!(Room::of(Path::new("/dev/shm")).unwrap().in_memory);
        assert_eq!(Room::of(Path::new("/proc")), None);
    }
}
