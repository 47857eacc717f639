//! Label vectors out of the table, and logits.

use half::f16;

use crate::arguments;
use crate::lab::{Lab, Noise, assert_close, wide};

/// Every clip its own labels, in its own order; −1 where a place is not used.
const INDEX: [i32; 10] = [3, -1, 0, 7, 7, 2, 2, -1, 6, 1];

#[test]
fn gather_text_takes_each_clips_own_labels() {
    let Some(lab) = Lab::open() else { return };
    let mut noise = Noise(30);
    for width in [8, 104, 512] {
        let table = noise.floats(8 * width, 1.0);
        let out = lab.room::<f16>(INDEX.len() * width);
        let arguments = arguments![&lab.put(&table), &lab.put(&INDEX), &out, INDEX.len(), width];
        lab.per_thread("gather_text", out.len / 8, arguments);
        let row = |label: &i32| match usize::try_from(*label) {
            Ok(label) => wide(&table[label * width..][..width]),
            Err(_) => vec![0.0; width],
        };
        let expected: Vec<f64> = INDEX.iter().flat_map(row).collect();
        assert_close(&lab.get_halves(&out), &expected, 0.0, &format!("width {width}"));
    }
}

#[test]
fn prompt_logits_are_cosines_of_the_moved_labels() {
    let Some(lab) = Lab::open() else { return };
    let mut noise = Noise(31);
    let (clips, prompts, scale) = (2, 5, 100.0f32);
    for width in [8, 104, 512] {
        let (table, alpha) = (noise.floats(8 * width, 1.0), noise.floats(width, 0.1));
        let (prompted, video) = (noise.halves(10 * width, 1.0), noise.floats(clips * width, 3.0));
        let logits = lab.room::<f32>(clips * prompts);
        let arguments = arguments![
            &lab.put(&table),
            &lab.put(&INDEX),
            &lab.put_halves(&prompted),
            &lab.put(&alpha),
            &lab.put(&video),
            scale,
            &logits,
            clips,
            prompts,
            width
        ];
        lab.per_warp("prompt_logits", clips * prompts, arguments);
        for (i, found) in lab.get::<f32>(&logits).into_iter().enumerate() {
            let Ok(label) = usize::try_from(INDEX[i]) else {
                assert_eq!(found, 0.0, "place {i} is not used");
                continue;
            };
            let (mut dot, mut text, mut clip) = (0.0, 0.0, 0.0);
            for c in 0..width {
                let moved = f64::from(alpha[c]) * f64::from(prompted[i * width + c]);
                let t = f64::from(table[label * width + c]) + moved;
                let v = f64::from(video[i / prompts * width + c]);
                (dot, text, clip) = (dot + t * v, text + t * t, clip + v * v);
            }
            let expected = f64::from(scale) * dot / (text * clip).sqrt();
            assert!((f64::from(found) - expected).abs() < 1e-4, "place {i}: {found}, expected {expected}");
        }
    }
}
