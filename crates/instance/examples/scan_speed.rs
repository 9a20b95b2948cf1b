//! Measures how fast a data directory is listed: `scan_speed <major version> <data directory>`.

use std::{env, error::Error, path::Path, time::Instant};

use everpoint_instance::data_directory::scan;
use everpoint_pgformat::MajorVersion;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [version, root] = args.as_slice() else {
        return Err("scan_speed <major version> <data directory>".into());
    };
    let version = MajorVersion::try_from(version.parse::<u16>()?)?;
    for _ in 0..3 {
        let began = Instant::now();
        let listing = scan(Path::new(root), version)?;
        println!(
            "{} files, {} directories, {:.1} MB in {:.3} s",
            listing.files().len(),
            listing.directories().len(),
            listing.total_size().get() as f64 / 1e6,
            began.elapsed().as_secs_f64(),
        );
    }
    Ok(())
}
