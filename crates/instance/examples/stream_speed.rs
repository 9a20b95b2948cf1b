//! Measures how fast WAL is streamed: `stream_speed <connection string> <start LSN> <end LSN>`.
//!
//! What is received is looked at no further than its length.

use std::{env, error::Error, time::Instant};

use everpoint_instance::{
    ReplicationClient, StreamEvent,
    replication::{ReceiverStatus, ReplyWanted, StreamStart},
};
use everpoint_pgformat::Lsn;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [spec, from, to] = args.as_slice() else {
        return Err("stream_speed <connection string> <start LSN> <end LSN>".into());
    };
    let (from, to): (Lsn, Lsn) = (from.parse()?, to.parse()?);
    let mut client = ReplicationClient::connect(&spec.parse()?).await?;
    let timeline = client.identify_system().await?.timeline;
    let start = StreamStart {
        slot: None,
        from,
        timeline,
    };
    let mut stream = client.start(&start).await?;
    let began = Instant::now();
    let (mut end, mut messages) = (from, 0_u64);
    while end < to {
        match stream.next().await? {
            StreamEvent::Data { start, bytes, .. } => {
                end = start.advance(u64::try_from(bytes.len())?);
                messages += 1;
            }
            StreamEvent::KeepAlive {
                reply_requested: true,
                ..
            } => {
                let status = ReceiverStatus {
                    written: end,
                    flushed: end,
                    applied: end,
                };
                stream.send_status(status, ReplyWanted::No).await?;
            }
            StreamEvent::KeepAlive { .. } => {}
            other => return Err(format!("{other:?}").into()),
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let megabytes = end.bytes_since(from) as f64 / 1e6;
    println!(
        "{:.0} MB/s ({megabytes:.0} MB in {messages} messages, {seconds:.2} s)",
        megabytes / seconds
    );
    Ok(())
}
