//! Measures what this machine can do at best: `limits <data directory> <scratch directory> [codec|read|write]...`.
//!
//! The data directory is a cluster's; a sample of its files' bytes is compressed, hashed, encrypted and read.
//! The scratch directory should lie where a restore would write; what is written there is removed. Rates are
//! of bytes before compression, by the clock and by the processor's time, since other work may run beside.

mod codec;
mod sample;
mod writing;

use std::{
    env,
    error::Error,
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let args: Vec<String> = env::args().skip(1).collect();
    let [cluster, scratch, parts @ ..] = args.as_slice() else {
        return Err("limits <data directory> <scratch directory> [codec|read|write]...".into());
    };
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|asked| asked == part);
    let cluster = PathBuf::from(cluster);
    if wanted("codec") {
        codec::measure(&sample::take(&cluster)?)?;
    }
    if wanted("read") {
        sample::measure_reading(&cluster)?;
    }
    if wanted("write") {
        writing::measure(&PathBuf::from(scratch))?;
    }
    Ok(())
}

/// What something took.
#[derive(Clone, Copy)]
struct Took {
    clock: Duration,
    processor: Duration,
}

impl Took {
    /// GB/s by the clock and by the processor's time.
    fn rates(self, bytes: u64) -> String {
        let rate = |time: Duration| bytes as f64 / 1e9 / time.as_secs_f64();
        format!(
            "{:.3} GB/s, {:.3} GB a processor second",
            rate(self.clock),
            rate(self.processor)
        )
    }
}

/// Runs `work` and measures the clock and the processor time of the whole process.
fn timed<T>(work: impl FnOnce() -> T) -> (T, Took) {
    let processor = processor_time();
    let began = Instant::now();
    let result = work();
    let clock = began.elapsed();
    (
        result,
        Took {
            clock,
            processor: processor_time().saturating_sub(processor),
        },
    )
}

fn processor_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime)
        .try_into()
        .unwrap_or_default()
}
