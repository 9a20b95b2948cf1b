//! Progress on standard error: a bar on a terminal, a line now and then elsewhere.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use everpoint_engine::progress::{Progress, Reading};
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::{task::JoinHandle, time::sleep};

const TERMINAL_INTERVAL: Duration = Duration::from_millis(100);
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Shows progress until dropped.
pub struct Display {
    task: JoinHandle<()>,
    bar: Option<ProgressBar>,
}

impl Display {
    /// Begins to show.
    pub fn new(progress: &Progress) -> Self {
        let progress = progress.clone();
        if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let task = tokio::spawn(draw(progress, bar.clone()));
            return Self {
                task,
                bar: Some(bar),
            };
        }
        Self {
            task: tokio::spawn(print(progress)),
            bar: None,
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

async fn draw(progress: Progress, bar: ProgressBar) {
    let sized = "{msg} [{bar:24}] {bytes}/{total_bytes}  {bytes_per_sec}  {eta}";
    let sized = ProgressStyle::with_template(sized)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    let unsized_style = ProgressStyle::with_template("{msg} {spinner}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let mut phase = "";
    loop {
        let reading = progress.read();
        if reading.phase != phase {
            phase = reading.phase;
            bar.reset();
            bar.set_message(phase);
            let known = reading.total_bytes > 0;
            bar.set_style(if known {
                sized.clone()
            } else {
                unsized_style.clone()
            });
        }
        bar.set_length(reading.total_bytes.max(1));
        bar.set_position(reading.done_bytes);
        sleep(TERMINAL_INTERVAL).await;
    }
}

async fn print(progress: Progress) {
    let mut last = Reading {
        phase: "",
        ..progress.read()
    };
    let mut begun = Instant::now();
    let mut printed = Instant::now();
    loop {
        let reading = progress.read();
        if reading.phase != last.phase {
            (begun, printed) = (Instant::now(), Instant::now());
            last = reading;
        } else if printed.elapsed() >= LINE_INTERVAL {
            eprintln!("{}", line(&reading, begun.elapsed()));
            printed = Instant::now();
        }
        sleep(TERMINAL_INTERVAL).await;
    }
}

fn line(reading: &Reading, elapsed: Duration) -> String {
    let (done, total) = (reading.done_bytes, reading.total_bytes);
    let seconds = elapsed.as_secs().max(1);
    let rate = done / seconds;
    if total == 0 {
        return format!("{}: {} s", reading.phase, elapsed.as_secs());
    }
    let rest = total.saturating_sub(done).checked_div(rate);
    let rest = rest.map_or_else(
        || "unknown".to_owned(),
        |seconds| HumanDuration(Duration::from_secs(seconds)).to_string(),
    );
    let (done, total, rate) = (HumanBytes(done), HumanBytes(total), HumanBytes(rate));
    format!(
        "{}: {done} of {total}, {rate}/s, {rest} left",
        reading.phase
    )
}
