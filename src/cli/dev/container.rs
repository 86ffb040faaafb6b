//! Detection of a container, in which `grantd dev` may listen on all addresses: its network is a private one.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

/// Whether this process is in a container.
pub(super) fn is_here() -> bool {
    leaves_marks(Path::new("/"), std::env::var_os("container").as_deref())
}

/// Whether the files below `root`, or the variable `container`, are those of a container: Docker makes `/.dockerenv`,
/// Podman `/run/.containerenv`, Podman, LXC and systemd-nspawn the variable; Kubernetes mounts its service account, and
/// control groups of version 1 have the engine in their path.
fn leaves_marks(root: &Path, variable: Option<&OsStr>) -> bool {
    let files = [".dockerenv", "run/.containerenv", "var/run/secrets/kubernetes.io"];
    variable.is_some_and(|name| !name.is_empty())
        || files.iter().any(|file| root.join(file).exists())
        // A file that cannot be read decides nothing.
        || fs::read_to_string(root.join("proc/1/cgroup"))
            .is_ok_and(|groups| ["docker", "kubepods", "containerd", "libpod", "/lxc"].iter().any(|it| groups.contains(it)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_known_by_its_file_its_variable_or_its_control_group() {
        let root = |file: &str, text: &str| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            directory
        };
        for (file, text, is_container) in [
            (".dockerenv", "", true),
            ("run/.containerenv", "engine=\"podman\"", true),
            ("var/run/secrets/kubernetes.io/serviceaccount/token", "", true),
            ("proc/1/cgroup", "12:pids:/docker/0123\n", true),
            ("proc/1/cgroup", "1:name=systemd:/kubepods/burstable/pod1\n", true),
            ("proc/1/cgroup", "0::/init.scope\n", false),
            ("etc/hostname", "host", false),
        ] {
            assert_eq!(leaves_marks(root(file, text).path(), None), is_container, "{file}: {text}");
        }
        let bare = root("etc/hostname", "host");
        assert!(leaves_marks(bare.path(), Some(OsStr::new("podman"))));
        assert!(!leaves_marks(bare.path(), Some(OsStr::new(""))));
    }
}
