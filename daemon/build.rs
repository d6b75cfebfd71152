//! Puts the files of the page (`src/export/page/assets`) together and compresses them, with docs/troubleshooting.md as
//! HTML beside it. The binary has the result; nothing else is read when jouled runs.

#[path = "build/markdown.rs"]
mod markdown;

use miniz_oxide::MZFlush;
use miniz_oxide::deflate::core::{CompressorOxide, create_comp_flags_from_zip_params};
use miniz_oxide::deflate::stream::deflate;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

const ASSETS: &str = "src/export/page/assets";
const HELP: &str = "../docs/troubleshooting.md";
/// In the order in which they are put together.
const SCRIPTS: [&str; 10] =
    ["text.js", "chart.js", "state.js", "stream.js", "table.js", "now.js", "row.js", "meters.js", "time.js", "app.js"];

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed={ASSETS}");
    println!("cargo::rerun-if-changed={HELP}");
    println!("cargo::rerun-if-changed=build");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets OUT_DIR"))?);
    let asset = |name: &str| fs::read_to_string(Path::new(ASSETS).join(name));
    let style = asset("page.css")?;
    let script = SCRIPTS.iter().map(|name| asset(name)).collect::<io::Result<String>>()?;
    let head = asset("head.html")?.replace("{style}", &style).replace("{script}", &script);
    fs::write(out.join("page_head.deflate"), compressed(head.as_bytes(), MZFlush::Full)?)?;
    let help = markdown::html(&fs::read_to_string(HELP)?);
    let page = asset("help.html")?.replace("{style}", &style).replace("{body}", &help.html);
    fs::write(out.join("page_help.deflate"), compressed(page.as_bytes(), MZFlush::Finish)?)?;
    let reasons: String = help.reasons.iter().map(|(row, words)| format!("{row}\t{words}\n")).collect();
    fs::write(out.join("page_reasons.txt"), reasons)
}

/// Raw deflate. With [`MZFlush::Full`] it is the first part of a stream that goes on.
fn compressed(data: &[u8], flush: MZFlush) -> io::Result<Vec<u8>> {
    let mut compressor = CompressorOxide::new(create_comp_flags_from_zip_params(9, -15, 0));
    let mut out = vec![0; data.len() + 1024];
    let result = deflate(&mut compressor, data, &mut out, flush);
    if result.bytes_consumed != data.len() || result.status.is_err() {
        return Err(io::Error::other(format!("the page cannot be compressed: {result:?}")));
    }
    out.truncate(result.bytes_written);
    Ok(out)
}
