//! What `rsync --list-only` prints: a line for each file, `-rw-r--r--  1234 2026/11/26 22:10:01 name`.

use std::time::SystemTime;

use jiff::{civil::DateTime, tz::TimeZone};

/// A file of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFile {
    /// As it was asked for, below the folder that was.
    pub name: String,
    pub size: u64,
    /// To the second; none where it can't be read.
    pub modified: Option<SystemTime>,
    /// Changes with the content, unless it changes twice in a second and keeps its size.
    pub version: String,
}

/// The files that it names, in the order of the lines. The times are those of UTC.
pub fn parse(stdout: &[u8]) -> impl Iterator<Item = ListedFile> {
    stdout.split(|byte| *byte == b'\n').filter_map(|line| file(str::from_utf8(line).ok()?))
}

fn file(line: &str) -> Option<ListedFile> {
    let rest = line.strip_prefix('-')?;
    let (_, rest) = rest.split_once(' ')?;
    let (size, rest) = rest.trim_start().split_once(' ')?;
    let (date, rest) = rest.split_once(' ')?;
    let (time, name) = rest.split_once(' ')?;
    let version = format!("{size} {date} {time}");
    let modified = DateTime::strptime("%Y/%m/%d %H:%M:%S", format!("{date} {time}")).ok();
    let modified = modified.and_then(|time| Some(TimeZone::UTC.to_timestamp(time).ok()?.into()));
    Some(ListedFile { name: name.to_owned(), size: size.parse().ok()?, modified, version })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn files_and_nothing_else() {
        let stdout = b"drwxr-xr-x          4096 2026/11/26 22:10:01 .\n\
            -rw-r--r--          1234 2026/11/26 22:10:01 blobs/sha256/ab\n\
            lrwxrwxrwx             7 2026/11/26 22:10:01 link -> target\n\
            -rw------- 123456789012345 1970/01/01 00:00:09 a name\n\
            -rw-------              1 someday 00:00:09 odd\n\
            \xff\n\
            -short\n";
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let listed = |name: &str, size, modified, version: &str| ListedFile {
            name: name.to_owned(),
            size,
            modified,
            version: version.to_owned(),
        };
        assert_eq!(
            parse(stdout).collect::<Vec<_>>(),
            [
                listed("blobs/sha256/ab", 1234, at(1_795_731_001), "1234 2026/11/26 22:10:01"),
                listed("a name", 123_456_789_012_345, at(9), "123456789012345 1970/01/01 00:00:09"),
                listed("odd", 1, None, "1 someday 00:00:09"),
            ]
        );
    }
}
