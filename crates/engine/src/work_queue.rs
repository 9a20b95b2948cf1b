//! What a dispatcher gives out to worker threads.
//!
//! A worker that ends early, by an error or a panic, ends the work: nobody may wait for what it did not do.

use async_channel::{Receiver, Sender};

/// A queue in which at most `room` pieces of work wait.
pub fn work_queue<T>(room: usize) -> (Sender<T>, Work<T>) {
    let (sender, receiver) = async_channel::bounded(room);
    (sender, Work { receiver })
}

/// A worker's end of the queue; each worker has a clone of its own. Dropping one closes the queue and
/// drops what waits in it: workers leave it only when all was given out, or when the work failed.
#[derive(Debug)]
pub struct Work<T> {
    receiver: Receiver<T>,
}

// By hand, since what is worked on need not be cloned for it.
impl<T> Clone for Work<T> {
    fn clone(&self) -> Self {
        let receiver = self.receiver.clone();
        Self { receiver }
    }
}

impl<T> Work<T> {
    /// Waits for the next piece; `None` when all was given out or another worker ended early. Blocks the thread.
    pub fn next(&self) -> Option<T> {
        self.receiver.recv_blocking().ok()
    }
}

impl<T> Drop for Work<T> {
    fn drop(&mut self) {
        self.receiver.close();
        while self.receiver.try_recv().is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use tokio::time::timeout;

    use super::work_queue;

    /// Longer than any of this takes.
    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test(flavor = "multi_thread")]
    async fn a_worker_that_ends_early_ends_those_that_wait_and_the_dispatcher() {
        for panics in [false, true] {
            let (sender, work) = work_queue(4);
            let waiting = work.clone();
            let (told, waits) = tokio::sync::oneshot::channel();
            let waiting = thread::spawn(move || {
                let first = waiting.next();
                let _ = told.send(());
                (first, waiting.next())
            });
            sender.send(1).await.unwrap();
            waits.await.unwrap();
            let failing = thread::spawn(move || {
                let _work = work;
                assert!(!panics, "as it should");
            });
            timeout(LONG, sender.closed()).await.unwrap();
            assert!(sender.send(2).await.is_err());
            assert_eq!(waiting.join().unwrap(), (Some(1), None));
            assert_eq!(failing.join().is_err(), panics);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn all_that_was_given_out_is_done_by_somebody() {
        const PIECES: u32 = 1_000;
        let (sender, work) = work_queue(4);
        let worker = |work: super::Work<u32>| {
            thread::spawn(move || std::iter::from_fn(|| work.next()).sum::<u32>())
        };
        let workers = [worker(work.clone()), worker(work)];
        for piece in 0..PIECES {
            sender.send(piece).await.unwrap();
        }
        drop(sender);
        let sum: u32 = workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .sum();
        assert_eq!(sum, (0..PIECES).sum::<u32>());
    }
}
