//! Builds the book of `docs/` into `target/book`, and fails on a link that leads nowhere.
//!
//! The pages are staged as they lie in the repository, with the files that they link to, so that a link means the same in
//! the repository and in the book.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use mdbook_driver::MDBook;
use mdbook_driver::config::Config;

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let (staged, built) = (root.join("target/book-source"), root.join("target/book"));
    for directory in [&staged, &built] {
        if directory.exists() {
            fs::remove_dir_all(directory)?;
        }
    }
    let summary = fs::read_to_string(root.join("docs/SUMMARY.md")).context("docs/SUMMARY.md")?;
    let pages: Vec<PathBuf> = links(&summary).map(|link| resolved(Path::new("docs"), link)).collect();
    let (mut anchors, mut wrong) = (Vec::new(), BTreeSet::new());
    for page in &pages {
        let text = stage(&root, &staged, page)?;
        for link in links(&text).filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let parent = page.parent().unwrap_or(Path::new(""));
            let target = if path.is_empty() { page.clone() } else { resolved(parent, path) };
            let is_page = target.extension().is_some_and(|extension| extension == "md");
            if !root.join(&target).exists() {
                wrong.insert(format!("{}: there is no {}", page.display(), target.display()));
            } else if is_page && !pages.contains(&target) {
                wrong.insert(format!("{}: docs/SUMMARY.md does not list {}", page.display(), target.display()));
            } else if !anchor.is_empty() {
                anchors.push((page.clone(), target, anchor.to_owned()));
            } else if !is_page {
                stage_file_or_directory(&root, &staged, &target)?;
            }
        }
    }
    fail_on(wrong)?;
    stage_file_or_directory(&root, &staged, Path::new("docs/book.css"))?;
    fs::write(staged.join("SUMMARY.md"), from_root(&summary))?;

    let mut config = Config::from_disk(root.join("docs/book.toml"))?;
    config.book.src = PathBuf::from(".");
    config.build.build_dir.clone_from(&built);
    config.build.create_missing = false;
    MDBook::load_with_config(&staged, config)?.build()?;
    check_anchors(&built, &anchors)?;
    println!("{} pages in {}", pages.len(), built.display());
    Ok(())
}

/// Copies a page, and returns its text.
fn stage(root: &Path, staged: &Path, page: &Path) -> Result<String> {
    let text = fs::read_to_string(root.join(page)).with_context(|| page.display().to_string())?;
    let target = staged.join(page);
    fs::create_dir_all(target.parent().context("a page without a directory")?)?;
    fs::write(target, &text)?;
    Ok(text)
}

fn stage_file_or_directory(root: &Path, staged: &Path, path: &Path) -> Result<()> {
    let (from, to) = (root.join(path), staged.join(path));
    if from.is_dir() {
        for entry in fs::read_dir(&from)? {
            stage_file_or_directory(root, staged, &path.join(entry?.file_name()))?;
        }
        return Ok(());
    }
    // Pages are staged by themselves; mdBook copies no Markdown.
    if to.exists() || to.extension().is_some_and(|extension| extension == "md") {
        return Ok(());
    }
    fs::create_dir_all(to.parent().context("a file without a directory")?)?;
    fs::copy(from, to)?;
    Ok(())
}

/// The targets of the links and pictures of a page, outside fenced blocks and spans of code.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    let prose = text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    });
    let outside_code = prose.flat_map(|line| line.split('`').step_by(2));
    outside_code.flat_map(|part| part.split("](").skip(1).filter_map(|rest| rest.split(')').next()))
}

/// A relative path as seen from the root of the repository.
fn resolved(directory: &Path, link: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for part in directory.join(link).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir => {}
            other => path.push(other),
        }
    }
    path
}

/// The summary with paths from the root of the repository, where `docs` is one directory among others.
fn from_root(summary: &str) -> String {
    let mut parts = summary.split("](");
    let mut text = parts.next().unwrap_or("").to_owned();
    for part in parts {
        let (link, rest) = part.split_once(')').unwrap_or((part, ""));
        text.push_str("](");
        text.push_str(&resolved(Path::new("docs"), link).to_string_lossy());
        text.push(')');
        text.push_str(rest);
    }
    text
}

/// Looks for the target of each link within a page in what mdBook has made of it.
fn check_anchors(built: &Path, anchors: &[(PathBuf, PathBuf, String)]) -> Result<()> {
    let mut missing = BTreeSet::new();
    for (page, target, anchor) in anchors {
        let html = match target.file_name().and_then(|name| name.to_str()) {
            Some("README.md") => target.with_file_name("index.html"),
            _ => target.with_extension("html"),
        };
        let text = fs::read_to_string(built.join(&html)).with_context(|| html.display().to_string())?;
        if !text.contains(&format!("id=\"{anchor}\"")) {
            missing.insert(format!("{}: {} has no #{anchor}", page.display(), target.display()));
        }
    }
    fail_on(missing)
}

fn fail_on(wrong: BTreeSet<String>) -> Result<()> {
    if !wrong.is_empty() {
        bail!("{}", wrong.into_iter().collect::<Vec<_>>().join("\n"));
    }
    Ok(())
}
