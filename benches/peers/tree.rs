//! Trees that are the same everywhere: many small files like a Go module cache, few large ones like programs, and very many
//! that are tiny.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Sizes of source files: one in sixteen lies between each and the next.
const SIZES: [u64; 17] =
    [60, 200, 400, 700, 1000, 1400, 2000, 2800, 3900, 5300, 7200, 10_000, 14_000, 20_000, 26_000, 50_000, 112_000];

/// xorshift64*
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) * end) >> 32
    }

    /// Small numbers more often, as words of a language.
    fn often_small(&mut self, end: u64) -> usize {
        let (a, b) = (self.below(end), self.below(end));
        (a * b / end) as usize
    }
}

/// 57,000 files, 714 MB; a `scale`-th of it.
pub fn small(root: &Path, scale: u64) {
    sources(root, 57_000 / scale, 16);
}

/// 40,000 files, 220 MB, as packages have them; a `scale`-th of it.
pub fn packages(root: &Path, scale: u64) {
    sources(root, 40_000 / scale, 14);
}

/// So many files of the first `sizes` of [`SIZES`].
fn sources(root: &Path, count: u64, sizes: u64) {
    let mut random = Random(1);
    let words = words(&mut random);
    let mut text = Vec::new();
    for number in 0..count {
        let dir = root.join(format!(
            "host{}/owner{}/mod@v1.{}.0/pkg{}",
            number / 7680,
            number / 960,
            number / 64,
            number / 8
        ));
        if number % 8 == 0 {
            fs::create_dir_all(&dir).expect("a folder is made");
        }
        let at = random.below(sizes) as usize;
        let size = SIZES[at] + random.below(SIZES[at + 1] - SIZES[at]);
        source(&mut random, &words, size as usize, &mut text);
        fs::write(dir.join(format!("{}_{number}.go", words[random.often_small(2000)])), &text)
            .expect("a file is written");
    }
}

/// 1,000,000 files of 128 bytes; a `scale`-th of it.
pub fn many(root: &Path, scale: u64) {
    let mut random = Random(3);
    for number in 0..1_000_000 / scale {
        let dir = root.join(format!("package-{:04}/lib/source", number / 1000));
        if number % 1000 == 0 {
            fs::create_dir_all(&dir).expect("a folder is made");
        }
        let text: String = (0..8).map(|_| format!("{:016x}", random.below(u64::MAX >> 32))).collect();
        fs::write(dir.join(format!("module_{number:06}.js")), text).expect("a file is written");
    }
}

/// 11 files, 712 MB; a `scale`-th of it.
pub fn large(root: &Path, scale: u64) {
    let mut random = Random(2);
    fs::create_dir_all(root.join("bin")).expect("a folder is made");
    let codes: Vec<Vec<u8>> =
        (0..4096).map(|_| (0..3 + random.below(12)).map(|_| random.below(256) as u8).collect()).collect();
    for number in 0..11 {
        let size = (64_700_000 / scale) as usize;
        let mut bytes = Vec::with_capacity(size + 16);
        while bytes.len() < size {
            bytes.extend_from_slice(&codes[random.often_small(4096)]);
            if random.below(8) == 0 {
                bytes.extend_from_slice(&[random.below(256) as u8, 0, 0]);
            }
        }
        bytes.truncate(size);
        fs::write(root.join(format!("bin/program{number}")), bytes).expect("a file is written");
    }
}

/// Writes a new text into one file of each `of`, another one for each `turn`.
pub fn edit(root: &Path, of: u64, turn: u64) {
    let mut random = Random(turn + 1000);
    let words = words(&mut random);
    let mut files = Vec::new();
    list(root, &mut files);
    files.sort();
    let mut text = Vec::new();
    for file in files.iter().skip((turn % of) as usize).step_by(of as usize) {
        let size = fs::metadata(file).expect("it is there").len();
        source(&mut random, &words, size as usize, &mut text);
        fs::write(file, &text).expect("a file is written");
    }
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a folder is read") {
        let path = entry.expect("a folder is read").path();
        if path.is_dir() { list(&path, files) } else { files.push(path) }
    }
}

fn words(random: &mut Random) -> Vec<String> {
    const PARTS: [&str; 24] = [
        "get", "set", "new", "err", "Name", "Type", "Value", "List", "ctx", "Spec", "client", "Map", "Key", "node",
        "pod", "Option", "String", "Int", "Status", "read", "write", "Meta", "buf", "Version",
    ];
    let word = |random: &mut Random| (0..1 + random.below(3)).map(|_| PARTS[random.below(24) as usize]).collect();
    (0..2000)
        .map(|i| if i % 3 == 0 { word(random) } else { format!("{}{}", word(random), (b'a' + (i % 26) as u8) as char) })
        .collect()
}

/// Lines like those of a Go program, of words that this file uses again and again.
fn source(random: &mut Random, words: &[String], size: usize, text: &mut Vec<u8>) {
    const LINES: [&str; 12] = [
        "\tif # := #.#(#); err != nil {\n\t\treturn nil, err\n\t}\n",
        "func (# *#) #(# #) error {\n",
        "// # # the # of # # # and # a # for # #.\n",
        "\treturn #.#(#, #)\n}\n\n",
        "\t# := &#{#: #, #: #}\n",
        "\tfor _, # := range #.# {\n",
        "\t\t#.# = append(#.#, #)\n\t}\n",
        "type # struct {\n\t# #\n\t# []#\n\t# map[string]#\n}\n\n",
        "\tcase \"#\":\n\t\t#.# = #\n",
        "\t# #.# `json:\"#,omitempty\"`\n",
        "\t0x%, 0x%, 0x%, 0x%, 0x%, 0x%,\n",
        "\t\"#-% # #\": {#: \"%\", #: %},\n",
    ];
    text.clear();
    let used: Vec<&str> = (0..40).map(|_| &*words[random.often_small(2000)]).collect();
    while text.len() < size {
        for byte in LINES[random.often_small(12)].bytes() {
            match byte {
                b'#' => text.extend_from_slice(used[random.often_small(40)].as_bytes()),
                b'%' => text.extend_from_slice(random.below(10_000).to_string().as_bytes()),
                byte => text.push(byte),
            }
        }
    }
    text.truncate(size);
}
