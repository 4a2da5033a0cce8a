//! What is kept in `fuzz/`: inputs, and the words that they are made of.

use std::path::PathBuf;

use proptest::prelude::*;
use proptest::sample::{Index, select};

/// An input that an assertion prints as text.
#[derive(Clone)]
pub struct Input(pub Vec<u8>);

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// One change of an input: at this place, so many bytes are replaced by these.
type Edit = (Index, usize, Vec<u8>);

/// A file or folder of the fuzz targets.
pub fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

/// The seeds of a target and their names.
pub fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder("seeds").join(target)).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: PathBuf| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap());
    let mut seeds: Vec<_> = entries.map(named).collect();
    seeds.sort();
    seeds
}

/// The words of a target's dictionary, one in quotes on each line, with the escapes that libFuzzer knows.
pub fn words(target: &str) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(folder(&format!("dictionaries/{target}.txt"))).unwrap();
    let word = |line: &str| unescaped(line.strip_prefix('"').and_then(|line| line.strip_suffix('"')).expect(line));
    text.lines().map(word).collect()
}

fn unescaped(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match (byte, byte == b'\\') {
            (_, false) => byte,
            (_, true) => match rest.next().expect(text) {
                b'x' => {
                    let digits = [rest.next().expect(text), rest.next().expect(text)];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).expect(text)
                }
                other => other,
            },
        });
    }
    bytes
}

/// The seeds of a target, most of them edited.
pub fn near(target: &str) -> impl Strategy<Value = Input> {
    let seeds: Vec<Vec<u8>> = seeds(target).into_iter().map(|(_, bytes)| bytes).collect();
    let piece = prop_oneof![
        8 => select(words(target)),
        2 => "\\PC{0,4}".prop_map(String::into_bytes),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
        1 => select(seeds.clone()),
        2 => Just(Vec::new()),
    ];
    let edit = (any::<Index>(), prop_oneof![3 => Just(0), 2 => 0..4_usize, 1 => 0..60_usize], piece);
    let edits = proptest::collection::vec(edit, 0..8);
    (select(seeds), edits).prop_map(|(seed, edits)| Input(edits.into_iter().fold(seed, edited)))
}

fn edited(mut bytes: Vec<u8>, (place, taken, put): Edit) -> Vec<u8> {
    let start = place.index(bytes.len() + 1);
    let end = bytes.len().min(start + taken);
    bytes.splice(start..end, put);
    bytes
}
