//! The filled Corefile, written for people to look at.

use std::fs;
use std::io;
use std::path::Path;

/// Replaces the file by renaming, so that a reader sees the old or the new text. Where the directory does not allow it
/// (a single file mounted into a container), or what is there is no regular file, it is written in place; not on a full
/// disk, which would cost the old text. On a read-only file system, as the root of a container is, nobody looks for it: it is
/// not written, and that is no error.
pub(super) fn write_if_changed(path: &Path, text: &str) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|there| !there.is_file()) {
        return fs::write(path, text);
    }
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    let renamed = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, path));
    let Err(error) = renamed else { return Ok(()) };
    let _ = fs::remove_file(&temporary);
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Err(error),
        _ => fs::write(path, text).or_else(unless_read_only),
    }
}

fn unless_read_only(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::ReadOnlyFilesystem { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::PathBuf;

    use super::*;

    fn place(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("dnslet-output-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn the_file_is_replaced_only_when_it_differs_and_nothing_is_left_beside_it() {
        let place = place("replaced");
        let output = place.join("Corefile");
        write_if_changed(&output, "one").unwrap();
        let inode = fs::metadata(&output).unwrap().ino();
        write_if_changed(&output, "one").unwrap();
        assert_eq!(fs::metadata(&output).unwrap().ino(), inode, "the same file");
        write_if_changed(&output, "two").unwrap();
        assert_eq!(fs::read_to_string(&output).unwrap(), "two");
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn a_link_in_its_place_is_followed() {
        let place = place("link");
        let (output, target) = (place.join("Corefile"), place.join("elsewhere"));
        symlink(&target, &output).unwrap();
        write_if_changed(&output, "text").unwrap();
        assert!(fs::symlink_metadata(&output).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(target).unwrap(), "text");
        fs::remove_dir_all(place).unwrap();
    }
}
