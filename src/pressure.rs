//! More comes than can be answered in time: then some of it is refused at once, so that the rest is not answered too late.
//!
//! What is measured is what a request feels: how long work that is ready waits for a thread. It says the same whatever the
//! cause, and needs no guess at how much a machine can do.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How much is refused now.
#[derive(Debug, Default)]
pub struct Pressure {
    /// Of 1024 requests, so many.
    share: AtomicU32,
    turn: AtomicU32,
}

impl Pressure {
    /// Whether the request at hand is one of those to refuse. Spread evenly, and free while nothing is refused.
    pub fn refuses(&self) -> bool {
        let share = self.share.load(Ordering::Relaxed);
        // Steps of the golden ratio visit the whole range evenly.
        share > 0 && self.turn.fetch_add(0x9e37_79b9, Ordering::Relaxed) >> 22 < share
    }

    /// Watches until the end of the program.
    pub async fn watch(&self) {
        loop {
            // That the timer is late is not counted: then it was others who kept the machine busy, and refusing helps nobody.
            tokio::time::sleep(PERIOD).await;
            let share = self.share.load(Ordering::Relaxed);
            self.share.store(next(share, waited().await), Ordering::Relaxed);
        }
    }
}

/// How long a task waits behind all that is ready.
async fn waited() -> Duration {
    let since = Instant::now();
    let waiting = tokio::spawn(async move { since.elapsed() });
    // What a task spawns last goes first, and what it spawned before that goes to the end of the queue.
    tokio::spawn(async {});
    waiting.await.unwrap_or_default()
}

/// The share to refuse after work has waited for `lag`: more as long as it waits too long, less when it hardly waits.
fn next(share: u32, lag: Duration) -> u32 {
    if lag > TOO_LONG {
        let times = u32::try_from(lag.as_millis() / TOO_LONG.as_millis()).unwrap_or(4).clamp(1, 4);
        // Something always gets through, or nothing would be learnt.
        (share + 40 * times).min(960)
    } else if lag < TOO_LONG / 2 {
        share.saturating_sub(share / 8 + 1)
    } else {
        share
    }
}

const PERIOD: Duration = Duration::from_millis(10);
/// Short of what a client notices, and far above what any burst of the ordinary takes.
const TOO_LONG: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_the_wait_behind_all_that_is_ready() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (idle, busy) = runtime.block_on(async {
            let measured = tokio::spawn(async {
                let idle = waited().await;
                for _ in 0..20 {
                    tokio::spawn(async { std::thread::sleep(Duration::from_millis(5)) });
                }
                (idle, waited().await)
            });
            measured.await.unwrap()
        });
        assert!(idle < Duration::from_millis(50), "{idle:?}");
        assert!(busy >= Duration::from_millis(90), "{busy:?}");
    }

    #[test]
    fn the_share_rises_while_work_waits_and_falls_when_it_does_not() {
        let mut share = 0;
        for _ in 0..100 {
            share = next(share, Duration::from_millis(20));
        }
        assert_eq!(share, 0, "nothing is refused while all is well");
        for _ in 0..20 {
            share = next(share, Duration::from_millis(500));
        }
        assert_eq!(share, 960);
        assert_eq!(next(share, Duration::from_millis(35)), share, "held in between");
        let mut steps = 0;
        while share > 0 {
            share = next(share, Duration::from_millis(1));
            steps += 1;
        }
        assert!(steps < 100, "a second after the load has gone, nothing is refused: {steps}");
    }

    #[test]
    fn what_is_refused_is_spread_evenly() {
        let pressure = Pressure::default();
        assert!(!(0..1000).any(|_| pressure.refuses()));
        pressure.share.store(256, Ordering::Relaxed);
        let refused = (0..4096).filter(|_| pressure.refuses()).count();
        assert!((1000..1050).contains(&refused), "{refused}");
        let in_a_row = (0..40).filter(|_| pressure.refuses()).count();
        assert!((8..=12).contains(&in_a_row), "{in_a_row}");
    }
}
