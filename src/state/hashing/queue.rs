//! Bounded queue of jobs, fair by client and by source, in priority classes.
//!
//! A flood of guesses has neither a valid tag nor an address from which a right secret has come, so jobs with one of
//! these come first. None of this depends on whether the client exists, so response times do not reveal it.

use std::collections::{HashMap, VecDeque};

/// Priority class of a job. A full queue evicts from the last class first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// The secret has a valid tag: it was generated for this client, though it may be expired or revoked.
    Tagged,
    /// A right secret has come from this source before.
    KnownSource,
    /// Neither.
    Unknown,
    /// No request waits: the hash of a secret that was accepted by its verifier.
    Confirmation,
}

/// Key of a job in the queue.
#[derive(Debug, Clone, Copy)]
pub struct QueueKey {
    /// The priority class.
    pub priority: Priority,
    /// Hash of the claimed client id.
    pub client: u64,
    /// Hash of the source address.
    pub source: u64,
}

/// Queue of at most `capacity` jobs.
#[derive(Debug)]
pub struct Queue<J> {
    classes: [RoundRobin<RoundRobin<VecDeque<J>>>; CLASSES],
    capacity: usize,
    /// Whether a class is flooded by guesses; it then has at most [`FLOODED`] jobs.
    flooded: [bool; CLASSES],
    turn: usize,
}

/// Round-robin scheduler: takes one job from each flow in turn.
#[derive(Debug)]
struct RoundRobin<F> {
    flows: HashMap<u64, F>,
    order: VecDeque<u64>,
    /// Number of jobs in all flows.
    len: usize,
    /// At least the number of jobs in the longest flow.
    longest: usize,
}

impl<J> Queue<J> {
    /// Makes an empty queue.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { classes: Default::default(), capacity, flooded: [false; CLASSES], turn: 0 }
    }

    /// Sets the number of jobs that may wait. Those that wait already stay.
    pub fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    /// Sets whether a class is flooded by guesses.
    pub fn set_flooded(&mut self, class: Priority, flooded: bool) {
        if let Some(of_class) = self.flooded.get_mut(class as usize) {
            *of_class = flooded;
        }
    }

    /// Adds a job. A full queue evicts a job of a lower class or, within the same class, the last job of the flow with
    /// the most waiting jobs. Returns the evicted job, which may be the new one.
    pub fn push(&mut self, key: QueueKey, job: J) -> Option<J> {
        let evicted = if self.has_room(key.priority) {
            None
        } else {
            match self.make_room(key) {
                Some(evicted) => Some(evicted),
                None => return Some(job),
            }
        };
        let Some(class) = self.classes.get_mut(key.priority as usize) else { return Some(job) };
        class.push(&key.path(), job);
        evicted
    }

    /// Takes the next job. The first three classes get four, two and one turns in seven, so that none of them starves;
    /// the last has its turn when they are empty.
    pub fn pop(&mut self) -> Option<J> {
        self.turn = (self.turn + 1) % TURNS.len();
        let first = TURNS.get(self.turn).copied().unwrap_or(0);
        [first, 0, 1, 2, 3].into_iter().find_map(|class| self.classes.get_mut(class)?.take())
    }

    /// Removes the jobs for which `keep` is false.
    pub fn retain(&mut self, keep: impl Fn(&J) -> bool) {
        for class in &mut self.classes {
            class.retain(&keep);
        }
    }

    /// Number of waiting jobs.
    #[must_use]
    pub(super) fn depth(&self) -> usize {
        self.classes.iter().map(Flow::len).sum()
    }

    /// Whether a job of this class finds a free place.
    #[must_use]
    pub fn has_room(&self, class: Priority) -> bool {
        self.depth() < self.capacity && !self.is_crowded(class)
    }

    /// Whether guesses flood the class and take all of its places.
    #[must_use]
    pub fn is_crowded(&self, class: Priority) -> bool {
        let class = class as usize;
        self.flooded.get(class) == Some(&true) && self.classes.get(class).is_some_and(|jobs| jobs.len() >= FLOODED)
    }

    fn make_room(&mut self, key: QueueKey) -> Option<J> {
        let own = key.priority as usize;
        // A flood stays within the places of its class.
        let lowest =
            if self.is_crowded(key.priority) { own } else { self.classes.iter().rposition(|class| class.len() > 0)? };
        let class = self.classes.get_mut(lowest)?;
        match lowest.cmp(&own) {
            std::cmp::Ordering::Greater => class.evict(),
            std::cmp::Ordering::Less => None,
            std::cmp::Ordering::Equal => {
                let [outer, _] = key.path();
                let mine = class.flows.get(&outer).map_or(0, Flow::len);
                // The bound first, since a flood that finds no room must not cost a search each time.
                (mine + 1 < class.longest && mine + 1 < class.find_longest()).then(|| class.evict()).flatten()
            }
        }
    }
}

impl QueueKey {
    /// The flows of a job. A tag is bound to its client, so tagged jobs take turns by client first; an attacker can
    /// multiply clients, so others take turns by source first.
    fn path(&self) -> [u64; 2] {
        match self.priority {
            Priority::Tagged => [self.client, self.source],
            Priority::KnownSource | Priority::Unknown | Priority::Confirmation => [self.source, self.client],
        }
    }
}

/// Flow of jobs in a scheduler.
trait Flow {
    type Job;
    fn len(&self) -> usize;
    fn push(&mut self, path: &[u64], job: Self::Job);
    fn take(&mut self) -> Option<Self::Job>;
    fn evict(&mut self) -> Option<Self::Job>;
    fn retain(&mut self, keep: &impl Fn(&Self::Job) -> bool);
}

impl<J> Flow for VecDeque<J> {
    type Job = J;

    fn len(&self) -> usize {
        VecDeque::len(self)
    }

    fn push(&mut self, _path: &[u64], job: J) {
        self.push_back(job);
    }

    fn take(&mut self) -> Option<J> {
        self.pop_front()
    }

    fn evict(&mut self) -> Option<J> {
        self.pop_back()
    }

    fn retain(&mut self, keep: &impl Fn(&J) -> bool) {
        VecDeque::retain(self, keep);
    }
}

impl<F: Flow + Default> Flow for RoundRobin<F> {
    type Job = F::Job;

    fn len(&self) -> usize {
        self.len
    }

    fn push(&mut self, path: &[u64], job: F::Job) {
        let (&key, rest) = path.split_first().unwrap_or((&0, &[]));
        let order = &mut self.order;
        let flow = self.flows.entry(key).or_insert_with(|| {
            order.push_back(key);
            F::default()
        });
        flow.push(rest, job);
        self.len += 1;
        self.longest = self.longest.max(flow.len());
    }

    fn take(&mut self) -> Option<F::Job> {
        let next = self.order.pop_front()?;
        let flow = self.flows.get_mut(&next)?;
        let job = flow.take();
        if flow.len() > 0 {
            self.order.push_back(next);
        } else {
            self.flows.remove(&next);
        }
        self.len -= usize::from(job.is_some());
        job
    }

    fn evict(&mut self) -> Option<F::Job> {
        let longest = self.order.iter().copied().max_by_key(|flow| self.flows.get(flow).map_or(0, Flow::len))?;
        let flow = self.flows.get_mut(&longest)?;
        let job = flow.evict();
        if flow.len() == 0 {
            self.flows.remove(&longest);
            self.order.retain(|flow| *flow != longest);
        }
        self.len -= usize::from(job.is_some());
        job
    }

    fn retain(&mut self, keep: &impl Fn(&F::Job) -> bool) {
        self.flows.values_mut().for_each(|flow| flow.retain(keep));
        self.flows.retain(|_, flow| flow.len() > 0);
        self.order.retain(|flow| self.flows.contains_key(flow));
        self.len = self.flows.values().map(Flow::len).sum();
        self.find_longest();
    }
}

impl<F: Flow> RoundRobin<F> {
    /// Returns the number of jobs in the longest flow.
    fn find_longest(&mut self) -> usize {
        self.longest = self.flows.values().map(Flow::len).max().unwrap_or(0);
        self.longest
    }
}

impl<F> Default for RoundRobin<F> {
    fn default() -> Self {
        Self { flows: HashMap::new(), order: VecDeque::new(), len: 0, longest: 0 }
    }
}

/// Number of priority classes.
pub(super) const CLASSES: usize = 4;
/// Number of jobs of a class that may wait while guesses flood it.
pub(super) const FLOODED: usize = 256;
const TURNS: [usize; 7] = [0, 1, 0, 2, 0, 1, 0];

#[cfg(test)]
mod tests {
    use super::*;

    fn key(priority: Priority, client: u64, source: u64) -> QueueKey {
        QueueKey { priority, client, source }
    }

    fn drain(queue: &mut Queue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn sources_take_turns_and_within_a_source_clients_do() {
        let mut queue = Queue::new(100);
        for job in 0..5 {
            assert_eq!(queue.push(key(Priority::Unknown, 1, 1), job), None);
        }
        queue.push(key(Priority::Unknown, 2, 1), 10);
        queue.push(key(Priority::Unknown, 1, 2), 20);
        assert_eq!(drain(&mut queue), [0, 20, 10, 1, 2, 3, 4]);
        assert!(
            queue.depth() == 0 && queue.classes.iter().all(|class| class.flows.is_empty() && class.order.is_empty())
        );
    }

    #[test]
    fn standings_that_a_flood_cannot_have_are_served_first_and_find_room() {
        let mut queue = Queue::new(4);
        for job in 0..4 {
            assert_eq!(queue.push(key(Priority::Unknown, u64::from(job), u64::from(job)), job), None);
        }
        assert_eq!(queue.push(key(Priority::Unknown, 9, 9), 9), Some(9), "the flood keeps itself out");
        assert!(queue.push(key(Priority::KnownSource, 1, 1), 10).is_some_and(|evicted| evicted < 4));
        assert!(queue.push(key(Priority::Tagged, 1, 1), 20).is_some_and(|evicted| evicted < 4));
        assert_eq!(queue.depth(), 4);
        let order = drain(&mut queue);
        assert!(order[..3].contains(&20) && order[..3].contains(&10), "{order:?}");
    }

    #[test]
    fn the_source_with_most_waiting_jobs_makes_room() {
        let mut queue = Queue::new(4);
        for job in 0..4 {
            queue.push(key(Priority::KnownSource, 1, 1), job);
        }
        assert_eq!(queue.push(key(Priority::KnownSource, 2, 2), 10), Some(3));
        assert_eq!(queue.push(key(Priority::KnownSource, 2, 2), 11), Some(2));
        assert_eq!(queue.push(key(Priority::KnownSource, 2, 2), 12), Some(12), "two each is fair");
        assert_eq!(queue.push(key(Priority::Unknown, 3, 3), 30), Some(30), "no room for less standing");
        assert_eq!(queue.push(key(Priority::Confirmation, 3, 3), 40), Some(40), "least of all for no request");
    }

    #[test]
    fn no_class_starves() {
        let mut queue = Queue::new(100);
        for job in 0..30 {
            queue.push(key(Priority::Tagged, 1, 1), job);
        }
        queue.push(key(Priority::KnownSource, 1, 1), 100);
        queue.push(key(Priority::Unknown, 1, 1), 200);
        let order = drain(&mut queue);
        assert!(order[..7].contains(&100) && order[..7].contains(&200), "{order:?}");
    }

    #[test]
    fn a_class_that_guesses_flood_has_few_places_and_the_others_keep_theirs() {
        let mut queue = Queue::new(10_000);
        queue.set_flooded(Priority::Unknown, true);
        for job in 0..1000_u32 {
            let evicted = queue.push(key(Priority::Unknown, 1, u64::from(job)), job);
            assert_eq!(evicted, (job >= 256).then_some(job));
        }
        assert_eq!(queue.push(key(Priority::Unknown, 1, 0), 1), Some(1), "its source has as many as any");
        for job in 0..1000_u32 {
            assert_eq!(queue.push(key(Priority::KnownSource, u64::from(job), 1), job), None);
        }
        assert_eq!((queue.depth(), queue.is_crowded(Priority::Unknown)), (1256, true));
        queue.set_flooded(Priority::Unknown, false);
        assert_eq!(queue.push(key(Priority::Unknown, 1, 5000), 1), None);
    }

    #[test]
    fn confirmations_wait_until_no_request_does() {
        let mut queue = Queue::new(100);
        queue.push(key(Priority::Confirmation, 0, 0), 1000);
        for job in 0..30 {
            queue.push(key(Priority::Unknown, 1, 1), job);
        }
        assert_eq!(drain(&mut queue).last(), Some(&1000));
    }

    #[test]
    fn jobs_that_nobody_waits_for_leave_no_trace() {
        let mut queue = Queue::new(100);
        for job in 0..50 {
            queue.push(key(Priority::Unknown, u64::from(job % 5), u64::from(job % 7)), job);
        }
        queue.retain(|job| *job == 42);
        assert_eq!((queue.depth(), drain(&mut queue)), (1, vec![42]));
        assert!(queue.classes.iter().all(|class| class.flows.is_empty() && class.order.is_empty()));
    }
}
