//! The file that tells others our process id while we serve.

use std::fs;
use std::io;
use std::path::PathBuf;

/// A written pidfile; dropping it removes the file if it still holds our id.
#[derive(Debug)]
pub(super) struct Pidfile {
    path: PathBuf,
    content: String,
}

impl Pidfile {
    /// Writes the id and a newline.
    pub(super) fn write(path: PathBuf) -> io::Result<Pidfile> {
        let content = format!("{}\n", std::process::id());
        fs::write(&path, &content)?;
        Ok(Pidfile { path, content })
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // A successor may have written its own id meanwhile.
        if fs::read_to_string(&self.path).is_ok_and(|content| content == self.content) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_removed_at_the_end_unless_another_process_took_it() {
        let path = std::env::temp_dir().join(format!("dnslet-pidfile-{}", std::process::id()));
        let pidfile = Pidfile::write(path.clone()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(pidfile);
        assert!(!path.exists());
        let pidfile = Pidfile::write(path.clone()).unwrap();
        fs::write(&path, "1\n").unwrap();
        drop(pidfile);
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
        fs::remove_file(&path).unwrap();
    }
}
