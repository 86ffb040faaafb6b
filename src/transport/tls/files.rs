//! Versions of files, by which replaced files are noticed and read again without a signal.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// Identities of files, with symbolic links resolved. Kubernetes replaces a mounted secret by replacing a link to its
/// directory, so paths alone do not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(Vec<Option<Identity>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    resolved: PathBuf,
    device: u64,
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

impl Version {
    /// Returns the present version of `files`. A missing file has none.
    #[must_use]
    pub fn of(files: &[PathBuf]) -> Self {
        let identity = |file: &PathBuf| {
            let resolved = fs::canonicalize(file).ok()?;
            let metadata = fs::metadata(&resolved).ok()?;
            Some(Identity {
                resolved,
                device: metadata.dev(),
                inode: metadata.ino(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                size: metadata.size(),
            })
        };
        Self(files.iter().map(identity).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_that_is_replaced_in_any_way_has_another_version() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (name, text) in [("v1", "one"), ("v2", "two")] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("tls.pem"), text).unwrap();
        }
        // As Kubernetes mounts a secret.
        symlink("v1", at("..data")).unwrap();
        symlink("..data/tls.pem", at("tls.pem")).unwrap();
        let version = || Version::of(&[at("tls.pem")]);
        let first = version();
        assert_eq!(version(), first);
        symlink("v2", at("..new")).unwrap();
        fs::rename(at("..new"), at("..data")).unwrap();
        let second = version();
        assert_ne!(second, first);
        fs::write(at("v2/tls.pem"), "longer").unwrap();
        let third = version();
        assert_ne!(third, second);
        fs::write(at("other"), "longer").unwrap();
        fs::rename(at("other"), at("v2/tls.pem")).unwrap();
        assert_ne!(version(), third);
        fs::remove_file(at("..data")).unwrap();
        assert_ne!(version(), third);
        assert_eq!(version(), version(), "not there is a version too");
    }
}
