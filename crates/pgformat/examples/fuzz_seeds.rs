//! Writes what the fuzz targets begin with: `fuzz_seeds <directory>` makes a folder of inputs for each.

#[path = "../fuzz/entries/mod.rs"]
#[allow(dead_code, reason = "the targets themselves are not run here")]
mod entries;

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = env::args().nth(1).ok_or("fuzz_seeds <directory>")?;
    for seeds in entries::seeds::all() {
        let folder = PathBuf::from(&directory).join(seeds.target);
        fs::create_dir_all(&folder)?;
        for (number, input) in seeds.inputs.iter().enumerate() {
            fs::write(folder.join(format!("seed-{number:03}")), input)?;
        }
    }
    Ok(())
}
