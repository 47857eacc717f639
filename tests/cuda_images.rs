//! The embedded kernels are those of the sources beside them.

use std::path::Path;

/// The lines of scripts/kernels.py and .sh that name compiler, targets and options.
fn recipe(scripts: &Path) -> Vec<String> {
    let text = |name: &str| std::fs::read_to_string(scripts.join(name)).unwrap();
    let (python, shell) = (text("kernels.py"), text("kernels.sh"));
    let says =
        |line: &&str| ["TARGETS =", "OPTIONS =", "wanted=("].iter().any(|start| line.starts_with(start));
    python.lines().chain(shell.lines()).filter(says).map(String::from).collect()
}

/// FNV-1a of the names and contents of kernels/*.cu and *.cuh in the order of their names, and of the recipe, as
/// scripts/kernels.py writes it.
fn source_hash(folder: &Path) -> String {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "cu" || ending == "cuh"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no sources in {}", folder.display());
    let recipe = recipe(&folder.parent().unwrap().join("scripts"));
    assert_eq!(recipe.len(), 3, "{recipe:?}");
    let names = files.iter().map(|file| file.file_name().unwrap().as_encoded_bytes().to_vec());
    let sources = names.zip(&files).flat_map(|(name, file)| [name, std::fs::read(file).unwrap()]);
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for mut part in sources.chain(recipe.into_iter().map(String::into_bytes)) {
        part.push(0);
        part.iter().for_each(|byte| hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    }
    format!("{hash:016x}")
}

#[test]
fn the_embedded_kernels_are_made_from_the_sources_beside_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let made_from = std::fs::read_to_string(folder.join("cubins/sources")).unwrap();
    assert_eq!(
        made_from.trim(),
        source_hash(&folder),
        "kernels/*.cu or their compilation changed since kernels/cubins was made: run `make kernels` and commit what it writes"
    );
}

/// Chip numbers as cubins carry them, from the file itself: a set that was renamed or mixed up is found.
#[test]
fn every_cubin_is_for_the_chip_in_its_name() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/cubins");
    for chip in [80u8, 86, 89, 90, 100, 120] {
        let cubin = std::fs::read(folder.join(format!("sm_{chip}.cubin"))).unwrap();
        assert_eq!(&cubin[..4], b"\x7fELF", "sm_{chip}");
        // The lowest byte of the flags up to ELF ABI version 7, the next one from 8 on.
        let at = if cubin[8] >= 8 { 49 } else { 48 };
        assert_eq!(cubin[at], chip, "sm_{chip}");
    }
    let ptx = std::fs::read_to_string(folder.join("compute_80.ptx")).unwrap();
    assert!(ptx.contains(".target sm_80"), "{}", &ptx[..ptx.len().min(300)]);
}
