//! Files an `import` names, handed to the parser, which opens none itself.

use std::fs;
use std::path::Path;

use crate::corefile::{Imported, glob, is_pattern};

/// The files for the path of an import: one, or those that match a pattern, in lexical order.
pub(super) fn imported(path: &Path) -> Result<Vec<Imported>, String> {
    if !is_pattern(path) {
        return read(path).map(|file| vec![file]);
    }
    let matching = glob(path, &mut |directory| {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
    });
    matching.into_iter().filter(|path| path.is_file()).map(|path| read(&path)).collect()
}

fn read(path: &Path) -> Result<Imported, String> {
    if path.is_dir() {
        return Err("it is a directory; import takes a file or a pattern such as DIR/*".to_owned());
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    Ok(Imported { path: path.to_owned(), text: String::from_utf8_lossy(&bytes).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_takes_files_in_order_and_a_plain_path_must_exist() {
        let place = std::env::temp_dir().join(format!("dnslet-files-{}", std::process::id()));
        fs::create_dir_all(place.join("sub.conf")).unwrap();
        for name in ["b.conf", "a.conf", "c.txt"] {
            fs::write(place.join(name), name).unwrap();
        }
        let texts: Vec<String> = imported(&place.join("*.conf")).unwrap().into_iter().map(|file| file.text).collect();
        assert_eq!(texts, ["a.conf", "b.conf"]);
        assert_eq!(imported(&place.join("c.txt")).unwrap()[0].text, "c.txt");
        assert!(imported(&place.join("*.none")).unwrap().is_empty());
        assert!(imported(&place.join("none")).unwrap_err().contains("No such file"));
        assert!(imported(&place.join("sub.conf")).unwrap_err().contains("is a directory"));
        fs::remove_dir_all(&place).unwrap();
    }
}
