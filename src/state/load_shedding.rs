//! Load shedding: refuses a share of requests while a standing queue delays them, so that the others are answered in
//! time.
//!
//! The measured delay is that of a request: the time that a ready task waits for a thread. It needs no estimate of the
//! machine's capacity. As in `CoDel` (RFC 8289 section 3), a long delay alone is no overload, since a burst causes one
//! too and drains. Overload is a delay that does not fall below the limit within an interval.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use std::{io, thread};

use tokio::runtime::Handle;

/// Share of requests that is refused at present.
#[derive(Debug)]
pub struct LoadShedding {
    /// Share of requests to refuse, in 1/1024.
    share: AtomicU32,
    turn: AtomicU32,
    /// `server.overload_delay`.
    limit: Duration,
}

impl LoadShedding {
    /// Sheds load when requests keep waiting longer than `limit`. Measuring begins with [`watch`](Self::watch).
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self { share: AtomicU32::new(0), turn: AtomicU32::new(0), limit }
    }

    /// Whether to refuse the present request. Refusals are spread evenly; the check is free while nothing is refused.
    pub fn refuses(&self) -> bool {
        let share = self.share.load(Ordering::Relaxed);
        // Steps of the golden ratio visit the whole range evenly.
        share > 0 && self.turn.fetch_add(0x9e37_79b9, Ordering::Relaxed) >> 22 < share
    }

    /// Whether a share of requests is refused at present.
    #[must_use]
    pub fn is_shedding(&self) -> bool {
        self.share.load(Ordering::Relaxed) > 0
    }

    /// Sets the share of requests to refuse, in 1/1024.
    #[cfg(test)]
    pub(crate) fn shed(&self, share: u32) {
        self.share.store(share, Ordering::Relaxed);
    }

    /// Starts a thread that measures the delay of the tasks of `runtime`, until the last reference to `self` is gone.
    ///
    /// A thread notices a delay while it lasts; a task would be delayed like the requests.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn watch(self: &Arc<Self>, runtime: Handle) -> io::Result<()> {
        let watched = Arc::downgrade(self);
        thread::Builder::new().name("load_shedding".into()).spawn(move || {
            let (mut probes, mut queue) = (Probes::new(), None);
            loop {
                thread::sleep(queue.as_ref().map_or(PERIOD, DelayMonitor::pause));
                let Some(load_shedding) = watched.upgrade() else { break };
                let now = Instant::now();
                probes.send(now, &runtime);
                let queue = queue.get_or_insert_with(|| DelayMonitor::new(load_shedding.limit));
                probes.observe(now, queue);
                load_shedding.share.store(queue.next_share(now), Ordering::Relaxed);
            }
        })?;
        Ok(())
    }
}

/// Empty tasks whose waiting time for a thread is measured.
struct Probes {
    /// Times at which the pending probes were sent, oldest first.
    under_way: Vec<Instant>,
    done: mpsc::Receiver<(Instant, Duration)>,
    sender: mpsc::Sender<(Instant, Duration)>,
}

impl Probes {
    fn new() -> Self {
        let (sender, done) = mpsc::channel();
        Self { under_way: Vec::new(), done, sender }
    }

    fn send(&mut self, now: Instant, runtime: &Handle) {
        if self.under_way.len() >= MOST_PROBES {
            return;
        }
        self.under_way.push(now);
        let sender = self.sender.clone();
        runtime.spawn(async move {
            // The watching thread may have ended.
            tokio::spawn(async move { sender.send((now, now.elapsed())).unwrap_or_default() });
            // The runtime runs the last spawned task first. This task moves the probe to the end of the queue.
            tokio::spawn(async {});
        });
    }

    fn observe(&mut self, now: Instant, queue: &mut DelayMonitor) {
        for (sent, waited) in self.done.try_iter() {
            self.under_way.retain(|at| *at != sent);
            queue.observe(now, Probe { sent, waited, done: true });
        }
        for &sent in &self.under_way {
            queue.observe(now, Probe { sent, waited: now.saturating_duration_since(sent), done: false });
        }
    }
}

/// Measurement of one probe.
#[derive(Debug, Clone, Copy)]
struct Probe {
    sent: Instant,
    /// Waiting time, so far or in all.
    waited: Duration,
    done: bool,
}

/// Detects a standing queue from the probes, and computes the share of requests to refuse.
#[derive(Debug)]
struct DelayMonitor {
    limit: Duration,
    /// The present delay above the limit.
    above: Option<LongDelay>,
    overloaded: bool,
    /// Time at which the last overload ended.
    ended: Option<Instant>,
    /// Largest share during the last overload.
    needed: u32,
    /// Longest delay since the share was last set.
    delay: Duration,
    share: u32,
    /// Whether requests hardly waited when the share was last set.
    calm: bool,
}

/// Delay above the limit.
#[derive(Debug, Clone, Copy)]
struct LongDelay {
    since: Instant,
    /// Time at which the first delayed probe ran. Everything queued before it is done then.
    turned: Option<Instant>,
}

impl DelayMonitor {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            above: None,
            overloaded: false,
            ended: None,
            needed: 0,
            delay: Duration::ZERO,
            share: 0,
            calm: false,
        }
    }

    fn observe(&mut self, now: Instant, probe: Probe) {
        self.delay = self.delay.max(probe.waited);
        if probe.waited <= self.limit {
            if probe.done {
                self.above = None;
            }
            return;
        }
        let above = self.above.get_or_insert(LongDelay { since: now, turned: None });
        if probe.done {
            above.turned.get_or_insert(now);
        }
        // After a burst, later probes wait for nothing. In a standing queue, probes sent after the first delayed one
        // has run are delayed as well.
        let stands = above.turned.is_some_and(|turned| probe.sent >= turned)
            && now.saturating_duration_since(above.since) >= INTERVAL;
        if stands && !std::mem::replace(&mut self.overloaded, true) {
            // RFC 8289 section 5.3: an overload that returns soon starts with half of the share that the last one
            // needed.
            let soon = self.ended.is_some_and(|ended| now.saturating_duration_since(ended) < REMEMBERED);
            self.share = if soon { self.needed / 2 } else { 0 };
            self.needed = 0;
        }
    }

    /// The time until the next probe. Probes are rare while requests hardly wait: an overload has to last for seconds anyway.
    fn pause(&self) -> Duration {
        if self.calm { CALM_PERIOD } else { PERIOD }
    }

    /// Computes the share to refuse from now on: it grows while requests wait, and shrinks when they hardly do.
    fn next_share(&mut self, now: Instant) -> u32 {
        let delay = std::mem::take(&mut self.delay);
        self.calm = !self.overloaded && self.above.is_none() && delay < self.limit / 10;
        if !self.overloaded {
            return 0;
        }
        let wanted = (self.limit / 10).max(PERIOD);
        if delay > wanted {
            let times = u32::try_from(delay.as_millis() / wanted.as_millis().max(1)).unwrap_or(4).clamp(1, 4);
            // Some requests always pass, since the delay is measured on them.
            self.share = (self.share + 40 * times).min(960);
        } else if delay < wanted / 2 {
            self.share = self.share.saturating_sub(self.share / 8 + 1);
        }
        self.needed = self.needed.max(self.share);
        if self.share == 0 {
            (self.overloaded, self.above, self.ended) = (false, None, Some(now));
        }
        self.share
    }
}

/// Time between two probes.
const PERIOD: Duration = Duration::from_millis(10);
/// The same while requests hardly wait.
const CALM_PERIOD: Duration = Duration::from_millis(100);
/// Time for which a delay above the limit has to last to count as overload. A thousand clients that start at once, on
/// one processor that takes a millisecond or two to sign with RSA, are served within it.
const INTERVAL: Duration = Duration::from_secs(2);
/// Time after an overload for which its share is remembered.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Maximum number of pending probes.
const MOST_PROBES: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(250);

    fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    /// The share at every 10 ms of `length`. A probe waits as `wait` says for the moment at which it is sent.
    fn shares(length: Duration, wait: impl Fn(Duration) -> Duration) -> Vec<u32> {
        let (start, mut queue, mut shares) = (Instant::now(), DelayMonitor::new(LIMIT), Vec::new());
        let (mut under_way, mut due): (Vec<Duration>, _) = (Vec::new(), PERIOD);
        for tick in 1.. {
            let at = PERIOD * tick;
            if at > length {
                break;
            }
            if at < due {
                shares.push(queue.share);
                continue;
            }
            under_way.push(at);
            under_way.retain(|&sent| {
                let done = sent + wait(sent) <= at;
                let waited = if done { wait(sent) } else { at.saturating_sub(sent) };
                queue.observe(start + at, Probe { sent: start + sent, waited, done });
                !done
            });
            shares.push(queue.next_share(start + at));
            due = at + queue.pause();
        }
        shares
    }

    #[test]
    fn probes_are_rare_while_requests_hardly_wait() {
        let (mut queue, now) = (DelayMonitor::new(LIMIT), Instant::now());
        let mut pause_after = |waited, done| {
            queue.observe(now, Probe { sent: now, waited, done });
            queue.next_share(now);
            queue.pause()
        };
        assert_eq!(pause_after(ms(24), true), CALM_PERIOD);
        assert_eq!(pause_after(ms(25), false), PERIOD);
        assert_eq!(pause_after(ms(1), true), CALM_PERIOD);
        assert_eq!(pause_after(ms(300), false), PERIOD);
        assert_eq!(pause_after(ms(1), false), PERIOD, "a request still waits");
        assert_eq!(pause_after(ms(1), true), CALM_PERIOD);
    }

    #[test]
    fn a_delay_below_the_limit_is_no_overload_however_long_it_lasts() {
        assert!(shares(ms(10_000), |_| ms(60)).iter().all(|share| *share == 0), "64 kept connections, 1 ms each");
        assert!(shares(ms(10_000), |_| ms(249)).iter().all(|share| *share == 0));
    }

    #[test]
    fn one_late_probe_is_no_overload() {
        let late = |sent| if sent == ms(500) { ms(3000) } else { ms(1) };
        assert!(shares(ms(10_000), late).iter().all(|share| *share == 0));
    }

    #[test]
    fn a_burst_that_drains_is_no_overload_whatever_its_size() {
        for size in [1000, 5000, 20_000] {
            let at_once = |sent: Duration| ms(size).saturating_sub(sent);
            assert!(shares(ms(size + 1000), at_once).iter().all(|share| *share == 0), "{size} of 1 ms at once");
        }
        // A thousand clients of 1 ms each start within 300 ms.
        let within = |sent: Duration| {
            let arrived = sent.min(ms(300)) * 10 / 3;
            arrived.saturating_sub(sent)
        };
        assert!(shares(ms(3000), within).iter().all(|share| *share == 0));
    }

    #[test]
    fn a_queue_that_stands_is_an_overload_from_an_interval_on() {
        let refused = shares(ms(4000), |_| ms(400));
        let first = refused.iter().position(|share| *share > 0).unwrap();
        assert!((200..300).contains(&first), "after {first} periods");
        assert_eq!(refused.last(), Some(&960));
        // Twice as much comes as can be answered: the queue grows by a second each second.
        let refused = shares(ms(4000), |sent| sent);
        assert!(refused.iter().position(|share| *share > 0).is_some_and(|first| first < 300));
    }

    #[test]
    fn shedding_ends_with_the_load_and_restarts_with_a_large_share() {
        let overload = |sent: Duration| if sent < ms(3000) || sent >= ms(5500) { ms(400) } else { ms(1) };
        let refused = shares(ms(9000), overload);
        assert!(refused[299] > 0);
        assert!(refused[430..750].iter().all(|share| *share == 0), "a second after the last late answer");
        let again = refused[550..].iter().find(|share| **share > 0).unwrap();
        assert!(*again > 400, "{again}");
        // One late probe soon after an overload is none.
        let burst = |sent: Duration| if sent < ms(3000) || sent == ms(5500) { ms(400) } else { ms(1) };
        assert!(shares(ms(9000), burst)[430..].iter().all(|share| *share == 0));
    }

    #[test]
    fn the_share_is_held_between_a_half_of_the_wanted_delay_and_all_of_it() {
        let mut queue = DelayMonitor { overloaded: true, share: 500, ..DelayMonitor::new(LIMIT) };
        let mut after = |delay| {
            queue.delay = delay;
            queue.next_share(Instant::now())
        };
        assert_eq!(after(ms(20)), 500);
        assert!(after(ms(26)) > 500);
        assert!(after(ms(5)) < 540);
    }

    #[test]
    fn refusals_are_spread_evenly() {
        let load_shedding = LoadShedding::new(LIMIT);
        assert!(!(0..1000).any(|_| load_shedding.refuses()));
        load_shedding.share.store(256, Ordering::Relaxed);
        let refused = (0..4096).filter(|_| load_shedding.refuses()).count();
        assert!((1000..1050).contains(&refused), "{refused}");
        let in_a_row = (0..40).filter(|_| load_shedding.refuses()).count();
        assert!((8..=12).contains(&in_a_row), "{in_a_row}");
    }

    #[test]
    fn the_wait_behind_all_that_is_ready_is_seen_while_it_lasts() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let load_shedding = Arc::new(LoadShedding::new(ms(50)));
        load_shedding.watch(runtime.handle().clone()).unwrap();
        let busy = Instant::now();
        // Each takes 10 ms and is ready again at once, as kept connections are that ask again and again.
        for _ in 0..20 {
            runtime.spawn(std::future::poll_fn(|context| {
                thread::sleep(ms(10));
                context.waker().wake_by_ref();
                std::task::Poll::<()>::Pending
            }));
        }
        while load_shedding.share.load(Ordering::Relaxed) == 0 {
            assert!(busy.elapsed() < Duration::from_secs(30), "a queue of 200 ms was not seen");
            thread::sleep(ms(10));
        }
        assert!(busy.elapsed() >= INTERVAL);
        runtime.shutdown_background();
    }
}
