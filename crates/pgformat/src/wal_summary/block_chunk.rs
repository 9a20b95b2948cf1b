//! The blocks of one chunk of 2^16, by their low 16 bits.

/// 64-bit words in a chunk's bitmap.
const BITMAP_WORDS: usize = 1024;
/// Longest array; a longer one becomes a bitmap.
const MAX_ARRAY: usize = 1024;

#[derive(Clone, Debug)]
pub(super) enum ChunkBlocks {
    /// Sorted.
    Array(Vec<u16>),
    Bitmap(Box<[u64; BITMAP_WORDS]>),
}

impl ChunkBlocks {
    pub(super) fn of_one(low: u16) -> Self {
        Self::Array(vec![low])
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Array(array) => u64::try_from(array.len()).unwrap_or(u64::MAX),
            Self::Bitmap(words) => words.iter().map(|word| u64::from(word.count_ones())).sum(),
        }
    }

    pub(super) fn memory(&self) -> usize {
        match self {
            Self::Array(array) => size_of_val(array.as_slice()),
            Self::Bitmap(words) => size_of_val(words.as_slice()),
        }
    }

    pub(super) fn contains(&self, low: u16) -> bool {
        match self {
            Self::Array(array) => array.binary_search(&low).is_ok(),
            Self::Bitmap(words) => {
                let (word, bit) = place(low);
                words.get(word).is_some_and(|word| word & bit != 0)
            }
        }
    }

    #[inline]
    pub(super) fn insert(&mut self, low: u16) -> usize {
        match self {
            Self::Bitmap(words) => {
                let (word, bit) = place(low);
                if let Some(word) = words.get_mut(word) {
                    *word |= bit;
                }
                0
            }
            Self::Array(array) => {
                let index = match array.last() {
                    Some(last) if *last < low => array.len(),
                    Some(last) if *last == low => return 0,
                    _ => match array.binary_search(&low) {
                        Ok(_) => return 0,
                        Err(index) => index,
                    },
                };
                if array.len() < MAX_ARRAY {
                    array.insert(index, low);
                    return size_of::<u16>();
                }
                let before = self.memory();
                self.become_bitmap();
                self.insert(low);
                self.memory() - before
            }
        }
    }

    /// Adds all blocks from `first` to `last`.
    pub(super) fn insert_all(&mut self, first: u16, last: u16) -> usize {
        let before = self.memory();
        if let Self::Array(array) = self {
            if array.len() + usize::from(last - first) < MAX_ARRAY {
                for low in first..=last {
                    self.insert(low);
                }
                return self.memory() - before;
            }
            self.become_bitmap();
        }
        if let Self::Bitmap(words) = self {
            let (first_word, last_word) = (place(first).0, place(last).0);
            for (index, word) in words.iter_mut().enumerate() {
                if index >= first_word && index <= last_word {
                    let low = if index == first_word { first % 64 } else { 0 };
                    let high = if index == last_word { last % 64 } else { 63 };
                    *word |= u64::MAX << low & u64::MAX >> (63 - high);
                }
            }
        }
        self.memory() - before
    }

    pub(super) fn remove_from(&mut self, low: u16) {
        match self {
            Self::Array(array) => array.truncate(array.partition_point(|block| *block < low)),
            Self::Bitmap(words) => {
                let (cut, bit) = place(low);
                for (index, word) in words.iter_mut().enumerate() {
                    if index == cut {
                        *word &= bit - 1;
                    } else if index > cut {
                        *word = 0;
                    }
                }
            }
        }
    }

    pub(super) fn union(&mut self, other: &Self) {
        match other {
            Self::Array(array) => {
                for low in array {
                    self.insert(*low);
                }
            }
            Self::Bitmap(theirs) => {
                self.become_bitmap();
                if let Self::Bitmap(words) = self {
                    for (word, theirs) in words.iter_mut().zip(theirs.iter()) {
                        *word |= theirs;
                    }
                }
            }
        }
    }

    fn become_bitmap(&mut self) {
        if let Self::Array(array) = self {
            let mut bitmap = Self::Bitmap(Box::new([0; BITMAP_WORDS]));
            for low in array {
                bitmap.insert(*low);
            }
            *self = bitmap;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u16> {
        let (array, words): (&[u16], &[u64]) = match self {
            Self::Array(array) => (array, &[]),
            Self::Bitmap(words) => (&[], words.as_slice()),
        };
        let of_words = (0_u16..).zip(words).flat_map(|(index, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = u16::try_from(rest.trailing_zeros()).ok()?;
                if rest == 0 {
                    return None;
                }
                rest &= rest - 1;
                Some(index * 64 + bit)
            })
        });
        array.iter().copied().chain(of_words)
    }
}

/// A block's word in its chunk's bitmap, and its bit there.
fn place(low: u16) -> (usize, u64) {
    (usize::from(low / 64), 1 << (low % 64))
}
