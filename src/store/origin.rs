//! The server or file that connections lead to, and detection of its replacement.
//!
//! A failover that cuts no connection leaves old connections on the former primary. A file that is replaced leaves them
//! on the deleted file. The first connection that reaches another server or file outdates all older ones.

use crate::model::event::Event;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::{LIFETIME, Store, StoreError, WATCHED_LIFETIME};

/// The server or file that connections lead to.
#[derive(Debug, Default)]
pub(super) struct Origin {
    state: Mutex<OriginState>,
    /// Notified when connections have to be made anew.
    moved: Notify,
}

#[derive(Debug, Default)]
struct OriginState {
    /// System identifier, timeline and database of a server, or device and inode of a file.
    identity: Option<String>,
    /// Time at which the server was started.
    started_at: Option<String>,
    /// Connections made before this moment are not used again.
    since: Option<Instant>,
    /// Until then a server that takes over is noticed by a connection that is made for that.
    watched_until: Option<Instant>,
    /// Inodes of the `-wal` and `-shm` files of the SQLite database that `identity` names.
    beside: [Option<u64>; 2],
}

impl Origin {
    /// Records the server that a new connection has reached. A change outdates all older connections.
    pub(super) fn note(&self, identity: &str, started_at: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let has_other_start = state.started_at.replace(started_at.to_owned()).is_some_and(|known| known != started_at);
        match &state.identity {
            Some(known) if known == identity => {
                if has_other_start {
                    // Started again, which has cut the older connections, or a clone of the other.
                    state.since = Some(Instant::now());
                    self.moved.notify_one();
                }
                return;
            }
            Some(former) => {
                tracing::warn!(
                    event = Event::DatabaseMoved.as_str(),
                    from = former,
                    to = identity,
                    "connections lead to another database server than before; those made before are replaced"
                );
                state.since = Some(Instant::now());
                self.moved.notify_one();
            }
            None => {}
        }
        state.identity = Some(identity.to_owned());
    }

    /// Records that a new connection has reached a server that does not tell which one it is.
    pub(super) fn note_unknown(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.identity.take().is_some() {
            state.since = Some(Instant::now());
            self.moved.notify_one();
        }
    }

    /// Outdates every connection, since one of them leads to a read-only server.
    pub(super) fn outdate_all(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).since = Some(Instant::now());
        self.moved.notify_one();
    }

    /// Whether connections tell to which server or file they lead.
    pub(super) fn is_known(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).identity.is_some()
    }

    /// Whether a connection of this age was made before the last change.
    pub(super) fn is_outdated(&self, age: Duration) -> bool {
        let since = self.state.lock().unwrap_or_else(PoisonError::into_inner).since;
        since.is_some_and(|since| since.elapsed() < age)
    }

    /// Records that until `until` a server that takes over is noticed by a connection that is made for that.
    pub(super) fn note_watched(&self, until: Instant) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).watched_until = Some(until);
    }

    /// The age from which a connection of the pool is not used again.
    pub(super) fn lifetime(&self) -> Duration {
        let watched_until = self.state.lock().unwrap_or_else(PoisonError::into_inner).watched_until;
        if watched_until.is_some_and(|until| Instant::now() < until) { WATCHED_LIFETIME } else { LIFETIME }
    }

    /// Returns when connections are to be made anew.
    pub(super) async fn moved(&self) {
        self.moved.notified().await;
    }

    /// Checks whether an SQLite file is still the one of the last check.
    ///
    /// SQLite finds its write-ahead log by name and would replay the former file's log into the new file. The log is
    /// renamed.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the file does not exist.
    pub(super) fn check_file(&self, path: &Path) -> Result<(), StoreError> {
        let found = inode(path).ok_or_else(|| StoreError::Missing(path.to_owned()))?;
        let identity = format!("{}:{}", found.0, found.1);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let beside = [beside(path, "-wal"), beside(path, "-shm")];
        if let Some(former) = state.identity.replace(identity.clone()).filter(|former| *former != identity) {
            let [log, shared] = &beside;
            let kept = path.with_added_extension(format!("wal-of-{}", former.replace(':', "-")));
            let is_former =
                |file: &Path, then: Option<u64>| then.is_some() && inode(file).map(|(_, inode)| inode) == then;
            let mut set_aside = None;
            if is_former(log, state.beside[0]) {
                match fs::rename(log, &kept) {
                    Ok(()) => set_aside = Some(kept.display().to_string()),
                    Err(error) => {
                        state.identity = Some(former);
                        return Err(StoreError::Unavailable(sqlx::Error::Io(error)));
                    }
                }
            }
            if is_former(shared, state.beside[1])
                && let Err(error) = fs::remove_file(shared)
            {
                tracing::warn!(event = Event::DatabaseMoved.as_str(), path = %shared.display(), reason = %error, "this file of the replaced database cannot be removed");
            }
            tracing::warn!(event = Event::DatabaseMoved.as_str(), from = former, to = identity, path = %path.display(), set_aside, "the database file was replaced; everything is read again");
            state.since = Some(Instant::now());
            self.moved.notify_one();
        }
        state.beside = beside.map(|file| inode(&file).map(|(_, inode)| inode));
        Ok(())
    }
}

impl Store {
    /// Whether connections tell to which server they lead.
    pub(crate) fn knows_its_server(&self) -> bool {
        self.origin.is_known()
    }

    /// Records that a server that takes over is noticed for a while without the connections of the pool, which may then live
    /// longer. Has no effect where connections do not tell to which server they lead.
    pub fn note_watched(&self) {
        if self.origin.is_known() {
            self.origin.note_watched(Instant::now() + WATCHED_FOR);
        }
    }

    /// Whether a connection of this age may lead to a former server or file.
    pub(crate) fn is_outdated(&self, age: Duration) -> bool {
        self.origin.is_outdated(age)
    }

    /// Returns when connections have to be made anew.
    pub(crate) async fn moved(&self) {
        self.origin.moved().await;
    }
}

/// Time for which the connections of the pool may live longer after each note that somebody looks for another server.
const WATCHED_FOR: Duration = Duration::from_mins(1);

/// Returns device and inode of a file.
fn inode(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Returns the path of a file that SQLite keeps beside its database.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_connection_to_another_server_outdates_the_older_ones() {
        let origin = Origin::default();
        origin.note("7/1/a", "t");
        origin.note("7/1/a", "t");
        assert!(origin.is_known() && !origin.is_outdated(Duration::from_mins(1)));
        let changes: [fn(&Origin); 3] =
            [|origin| origin.note("7/2/a", "t"), |origin| origin.note("7/2/a", "u"), Origin::note_unknown];
        for change in changes {
            std::thread::sleep(Duration::from_millis(5));
            let before = Instant::now();
            change(&origin);
            assert!(
                origin.is_outdated(before.elapsed() + Duration::from_millis(1)) && !origin.is_outdated(Duration::ZERO)
            );
        }
        origin.note_unknown();
        assert!(!origin.is_known());
    }

    #[test]
    fn connections_live_longer_while_somebody_looks_for_another_server() {
        let origin = Origin::default();
        assert_eq!(origin.lifetime(), LIFETIME);
        origin.note_watched(Instant::now() + WATCHED_FOR);
        assert_eq!(origin.lifetime(), WATCHED_LIFETIME);
        origin.note_watched(Instant::now());
        assert_eq!(origin.lifetime(), LIFETIME);
    }

    #[test]
    fn the_log_of_a_replaced_file_is_set_aside_and_one_that_came_along_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("grantd.db");
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        let origin = Origin::default();
        assert!(matches!(origin.check_file(&path), Err(StoreError::Missing(_))));
        write("grantd.db", "a");
        write("grantd.db-wal", "log of a");
        write("grantd.db-shm", "");
        origin.check_file(&path).unwrap();
        origin.check_file(&path).unwrap();
        assert!(!origin.is_outdated(Duration::from_mins(1)));

        write("b", "b");
        fs::rename(directory.path().join("b"), &path).unwrap();
        origin.check_file(&path).unwrap();
        assert!(origin.is_outdated(Duration::from_mins(1)));
        let names = || {
            let mut names: Vec<String> = fs::read_dir(directory.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let after = names();
        assert!(after.len() == 2 && after[1].starts_with("grantd.db.wal-of-"), "{after:?}");
        assert_eq!(fs::read_to_string(directory.path().join(&after[1])).unwrap(), "log of a");

        // The next one brings its own.
        write("grantd.db-wal", "log of b");
        origin.check_file(&path).unwrap();
        write("c", "c");
        write("c-wal", "log of c");
        fs::rename(directory.path().join("c"), &path).unwrap();
        fs::rename(directory.path().join("c-wal"), directory.path().join("grantd.db-wal")).unwrap();
        origin.check_file(&path).unwrap();
        assert_eq!(fs::read_to_string(directory.path().join("grantd.db-wal")).unwrap(), "log of c");
    }
}
