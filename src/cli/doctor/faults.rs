//! Faults that `grantd doctor` found: a line for each, up to ten clients or resources of a kind, and a count of the others.

use crate::admin::checkup::FaultKind;

/// Faults, in the order in which they were found. The memory that they take does not grow with the registry.
#[derive(Debug, Default)]
pub(super) struct Faults {
    lines: Vec<String>,
    groups: Vec<Group>,
    count: u64,
}

/// Faults of one kind.
#[derive(Debug)]
struct Group {
    kind: FaultKind,
    /// Number of clients or resources that have the fault.
    subjects: u64,
    /// The last of them.
    last: String,
    /// Number of lines up to the last one of this kind.
    end: usize,
}

impl Faults {
    /// Adds a fault that is not one of many.
    pub(super) fn push(&mut self, line: String) {
        self.count += 1;
        self.lines.push(line);
    }

    /// Adds a fault of a client or a resource. The faults of one client come one after the other.
    pub(super) fn add(&mut self, kind: FaultKind, subject: &str, line: impl FnOnce() -> String) {
        let lines = self.lines.len();
        if !self.groups.iter().any(|group| group.kind == kind) {
            self.groups.push(Group { kind, subjects: 0, last: String::new(), end: lines });
        }
        let Some(group) = self.groups.iter_mut().find(|group| group.kind == kind) else { return };
        if group.subjects == 0 || group.last != subject {
            group.subjects += 1;
            subject.clone_into(&mut group.last);
        }
        if group.subjects <= SHOWN {
            group.end = lines + 1;
            self.lines.push(line());
        }
        self.count += 1;
    }

    /// Number of faults.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Returns the lines. Behind the last line of a kind of which there are more stands their number.
    pub(super) fn into_lines(mut self) -> Vec<String> {
        self.groups.sort_by_key(|group| std::cmp::Reverse(group.end));
        for group in self.groups.iter().filter(|group| group.subjects > SHOWN) {
            self.lines.insert(group.end, group.remainder());
        }
        self.lines
    }
}

impl Group {
    fn remainder(&self) -> String {
        let (more, subject) = (self.subjects - SHOWN, if self.kind.is_of_resource() { "resource" } else { "client" });
        let have = if more == 1 { " has" } else { "s have" };
        let what = if self.kind.is_advice() { "the same advice" } else { "this fault" };
        format!("{subject}: {more} more {subject}{have} {what}: {}", self.kind.sentence())
    }
}

/// Number of clients or resources whose faults of one kind are shown.
const SHOWN: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_clients_of_a_kind_are_shown_and_the_others_are_counted() {
        let mut faults = Faults::default();
        faults.push("first".to_owned());
        for n in 0..5000 {
            let id = format!("c{n:04}");
            faults.add(FaultKind::KeysExpired, &id, || format!("client {id}: keys"));
            if n < 11 {
                // Two faults of a kind are of one client still.
                for _ in 0..2 {
                    faults.add(FaultKind::CertificateExpired, &id, || format!("client {id}: certificate"));
                }
            }
        }
        faults.add(FaultKind::LargeTokens, "c", || "last".to_owned());
        assert_eq!(faults.count(), 1 + 5000 + 22 + 1);
        let lines = faults.into_lines();
        assert_eq!(lines.len(), 1 + 10 + 1 + 20 + 1 + 1);
        assert_eq!((lines[0].as_str(), lines[1].as_str()), ("first", "client c0000: keys"));
        assert_eq!(lines[28], "client c0009: keys");
        assert_eq!(lines[29], "client: 4990 more clients have this fault: all of its keys have expired");
        assert_eq!(lines[31], "client c0009: certificate");
        assert_eq!(lines[32], "client: 1 more client has this fault: a certificate has expired");
        assert_eq!(lines[33], "last");
    }
}
