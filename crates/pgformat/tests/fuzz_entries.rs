//! The fuzz targets in short: what they begin with, and some thousand inputs damaged at random, which are the same
//! in every run. `make fuzz` runs them at length.

#[cfg(test)]
#[path = "../fuzz/entries/mod.rs"]
mod entries;

#[cfg(test)]
mod tests {
    use super::entries::{filter, image, log, records, seeds, summary};

    /// Damaged inputs of each target.
    const DAMAGED: usize = 10_000;

    /// Numbers that look random (SplitMix64).
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            mixed ^ (mixed >> 31)
        }

        fn below(&mut self, limit: usize) -> usize {
            usize::try_from(self.next() % limit.max(1) as u64).expect("below the limit")
        }
    }

    /// Bytes flipped, overwritten, taken away, doubled or taken from another input.
    fn damage(input: &mut Vec<u8>, other: &[u8], numbers: &mut Numbers) {
        for _ in 0..=numbers.below(4) {
            let at = numbers.below(input.len());
            let end = (at + 1 + numbers.below(16)).min(input.len());
            match numbers.below(6) {
                0 => input[at] ^= 1 << numbers.below(8),
                1 => input[at] = [0, 1, 0x7F, 0x80, 0xFF][numbers.below(5)],
                2 => input[at..end].fill([0, 0xFF][numbers.below(2)]),
                3 => drop(input.drain(at..end)),
                4 => {
                    let doubled = input[at..end].to_vec();
                    drop(input.splice(at..at, doubled));
                }
                _ => {
                    let from = numbers.below(other.len());
                    let to = (from + 1 + numbers.below(64)).min(other.len());
                    drop(input.splice(at..end, other[from..to].iter().copied()));
                }
            }
            if input.is_empty() {
                return;
            }
        }
    }

    /// Of the undamaged inputs at least so much must be found sound.
    fn run_short(target: &str, run: fn(&[u8]) -> usize, sound: usize) {
        let seeds = seeds::all()
            .into_iter()
            .find(|seeds| seeds.target == target);
        let inputs = seeds.expect("a target").inputs;
        assert!(inputs.len() >= 20, "{} inputs", inputs.len());
        let found: usize = inputs.iter().map(|input| run(input)).sum();
        assert!(found >= sound, "{found} found sound");
        let mut numbers = Numbers(inputs.len() as u64);
        for round in 0..DAMAGED {
            let mut input = inputs[round % inputs.len()].clone();
            let other = &inputs[numbers.below(inputs.len())];
            damage(&mut input, other, &mut numbers);
            run(&input);
        }
    }

    #[test]
    fn log_damaged_anyhow_is_decoded_or_refused_wherever_it_is_cut() {
        run_short("log", log::run, 4000);
    }

    #[test]
    fn log_damaged_anyhow_is_filtered_or_refused_wherever_it_is_cut() {
        run_short("filter", filter::run, 20000);
    }

    #[test]
    fn records_damaged_anyhow_are_summarised_or_refused() {
        run_short("records", records::run, 2500);
    }

    #[test]
    fn summaries_damaged_anyhow_are_read_or_refused() {
        run_short("summary", summary::run, 300);
    }

    #[test]
    fn page_images_damaged_anyhow_are_unpacked_or_refused() {
        run_short("image", image::run, 200);
    }
}
