//! Bounded queue of jobs, fair by client and by source, in three priority classes.
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
    classes: [RoundRobin<RoundRobin<VecDeque<J>>>; 3],
    capacity: usize,
    depth: usize,
    turn: usize,
}

/// Round-robin scheduler: takes one job from each flow in turn.
#[derive(Debug)]
struct RoundRobin<F> {
    flows: HashMap<u64, F>,
    order: VecDeque<u64>,
}

impl<J> Queue<J> {
    /// Makes an empty queue.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            classes: [RoundRobin::default(), RoundRobin::default(), RoundRobin::default()],
            capacity,
            depth: 0,
            turn: 0,
        }
    }

    /// Adds a job. A full queue evicts a job of a lower class or, within the same class, the last job of the flow with
    /// the most waiting jobs. Returns the evicted job, which may be the new one.
    pub fn push(&mut self, key: QueueKey, job: J) -> Option<J> {
        let evicted = if self.depth < self.capacity {
            None
        } else {
            match self.make_room(key) {
                Some(evicted) => Some(evicted),
                None => return Some(job),
            }
        };
        let Some(class) = self.classes.get_mut(key.priority as usize) else { return Some(job) };
        // A tag is bound to its client, so tagged jobs take turns by client first; an attacker can multiply clients, so
        // others take turns by source first.
        let (outer, inner) = match key.priority {
            Priority::Tagged => (key.client, key.source),
            Priority::KnownSource | Priority::Unknown => (key.source, key.client),
        };
        class.flow(outer).flow(inner).push_back(job);
        self.depth += 1;
        evicted
    }

    /// Takes the next job. Classes get four, two and one turns in seven, so that none starves.
    pub fn pop(&mut self) -> Option<J> {
        self.turn = (self.turn + 1) % TURNS.len();
        let first = TURNS.get(self.turn).copied().unwrap_or(0);
        let job = [first, 0, 1, 2].into_iter().find_map(|class| self.classes.get_mut(class)?.take())?;
        self.depth -= 1;
        Some(job)
    }

    /// Removes the jobs for which `keep` is false.
    pub fn retain(&mut self, keep: impl Fn(&J) -> bool) {
        for class in &mut self.classes {
            for ring in class.flows.values_mut() {
                for jobs in ring.flows.values_mut() {
                    jobs.retain(|job| keep(job));
                }
                ring.sweep();
            }
            class.sweep();
        }
        self.depth = self.classes.iter().map(Flow::len).sum();
    }

    /// Number of waiting jobs.
    #[must_use]
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Whether the queue is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.depth >= self.capacity
    }

    fn make_room(&mut self, key: QueueKey) -> Option<J> {
        let lowest = self.classes.iter().rposition(|class| class.len() > 0)?;
        let own = key.priority as usize;
        let class = self.classes.get_mut(lowest)?;
        let evicted = match lowest.cmp(&own) {
            std::cmp::Ordering::Greater => class.evict(),
            std::cmp::Ordering::Less => None,
            std::cmp::Ordering::Equal => {
                let outer = if own == 0 { key.client } else { key.source };
                let mine = class.flows.get(&outer).map_or(0, Flow::len);
                let longest = class.flows.values().map(Flow::len).max().unwrap_or(0);
                (mine + 1 < longest).then(|| class.evict()).flatten()
            }
        };
        self.depth -= usize::from(evicted.is_some());
        evicted
    }
}

/// Flow of jobs in a scheduler.
trait Flow {
    type Job;
    fn len(&self) -> usize;
    fn take(&mut self) -> Option<Self::Job>;
    fn evict(&mut self) -> Option<Self::Job>;
}

impl<J> Flow for VecDeque<J> {
    type Job = J;

    fn len(&self) -> usize {
        VecDeque::len(self)
    }

    fn take(&mut self) -> Option<J> {
        self.pop_front()
    }

    fn evict(&mut self) -> Option<J> {
        self.pop_back()
    }
}

impl<F: Flow> Flow for RoundRobin<F> {
    type Job = F::Job;

    fn len(&self) -> usize {
        self.flows.values().map(Flow::len).sum()
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
        job
    }

    fn evict(&mut self) -> Option<F::Job> {
        let longest = self.order.iter().copied().max_by_key(|flow| self.flows.get(flow).map_or(0, Flow::len))?;
        let job = self.flows.get_mut(&longest)?.evict();
        self.sweep();
        job
    }
}

impl<F: Flow> RoundRobin<F> {
    /// Removes empty flows.
    fn sweep(&mut self) {
        self.flows.retain(|_, flow| flow.len() > 0);
        self.order.retain(|flow| self.flows.contains_key(flow));
    }
}

impl<F: Default> RoundRobin<F> {
    fn flow(&mut self, key: u64) -> &mut F {
        self.flows.entry(key).or_insert_with(|| {
            self.order.push_back(key);
            F::default()
        })
    }
}

impl<F> Default for RoundRobin<F> {
    fn default() -> Self {
        Self { flows: HashMap::new(), order: VecDeque::new() }
    }
}

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
