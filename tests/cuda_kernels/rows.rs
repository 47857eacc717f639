//! Kernels that work on rows: LayerNorm and its kin, activation, embeddings, copies, the few-rows product.

use half::f16;

use crate::arguments;
use crate::lab::{Argument, Lab, NULL, Noise, assert_close, wide};

const EPSILON: f32 = 1e-5;

fn layer_norm(row: &[f64], gain: &[f32], bias: &[f32]) -> Vec<f64> {
    let n = row.len() as f64;
    let mean = row.iter().sum::<f64>() / n;
    let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    let scale = 1.0 / (variance + f64::from(EPSILON)).sqrt();
    let affine = gain.iter().zip(bias).map(|(g, b)| (f64::from(*g), f64::from(*b)));
    row.iter().zip(affine).map(|(v, (g, b))| (v - mean) * scale * g + b).collect()
}

fn quick_gelu(x: f64) -> f64 {
    x / (1.0 + (-1.702 * x).exp())
}

#[test]
fn layer_norm_holds_on_every_width_and_stride() {
    let Some(lab) = Lab::open() else { return };
    let mut noise = Noise(1);
    for (rows, width, stride) in [(1, 96, 96), (7, 104, 104), (5, 768, 3072), (3, 1280, 1280), (33, 8, 8)] {
        let x = noise.halves((rows - 1) * stride + width, 2.0);
        let (gain, bias) = (noise.floats(width, 1.5), noise.floats(width, 0.5));
        let out = lab.room::<f16>(rows * width);
        let arguments = arguments![
            &lab.put_halves(&x),
            &out,
            &lab.put(&gain),
            &lab.put(&bias),
            rows,
            width,
            stride,
            EPSILON
        ];
        lab.per_warp("layer_norm", rows, arguments);
        let row = |r: usize| layer_norm(&wide(&x[r * stride..][..width]), &gain, &bias);
        let expected: Vec<f64> = (0..rows).flat_map(row).collect();
        assert_close(&lab.get_halves(&out), &expected, 1e-6, &format!("{rows}x{width}"));
    }
}

/// Where E[x²] − E[x]² would have no digits left, and where squares pass the range of f16.
#[test]
fn layer_norm_keeps_its_digits_at_a_large_mean_and_range() {
    let Some(lab) = Lab::open() else { return };
    let mut noise = Noise(2);
    for (mean, size) in [(4000.0, 20.0), (-30000.0, 500.0), (0.0, 60000.0), (0.0, 1e-4), (7.0, 0.0)] {
        let (rows, width) = (3, 776);
        let x: Vec<f32> =
            noise.floats(rows * width, size).iter().map(|v| f16::from_f32(v + mean).to_f32()).collect();
        let (gain, bias) = (vec![1.0; width], vec![0.0; width]);
        let out = lab.room::<f16>(rows * width);
        let (gains, biases) = (lab.put(&gain), lab.put(&bias));
        let arguments = arguments![&lab.put_halves(&x), &out, &gains, &biases, rows, width, width, EPSILON];
        lab.per_warp("layer_norm", rows, arguments);
        let expected: Vec<f64> = x.chunks(width).flat_map(|r| layer_norm(&wide(r), &gain, &bias)).collect();
        assert_close(&lab.get_halves(&out), &expected, 4e-6, &format!("mean {mean}, size {size}"));
    }
}

#[test]
fn quick_gelu_holds_over_the_whole_range() {
    let Some(lab) = Lab::open() else { return };
    let mut noise = Noise(3);
    for (rows, width, size) in [(1, 8, 4.0), (3, 1000, 12.0), (2, 96, 60000.0), (5, 3072, 0.01)] {
        let x = noise.halves(rows * width, size);
        let place = lab.put_halves(&x);
        lab.per_thread("quick_gelu", rows * width / 8, arguments![&place, rows, width]);
        let expected: Vec<f64> = x.iter().map(|v| quick_gelu(f64::from(*v))).collect();
        assert_close(&lab.get_halves(&place), &expected, 1e-6, &format!("{rows}x{width}, {size}"));
    }
}

#[test]
fn patch_rows_have_the_order_of_the_convolution_and_zeros_behind() {
    let Some(lab) = Lab::open() else { return };
    let mut noise = Noise(4);
    for (frames, size, patch) in [(1, 28, 14usize), (3, 64, 16), (2, 96, 32)] {
        let (side, columns) = (size / patch, (3 * patch * patch).next_multiple_of(8));
        let pixels: Vec<u8> = (0..frames * size * size * 3).map(|_| noise.word() as u8).collect();
        let (scale, shift) = ([0.017f32, 0.018, 0.016], [-2.1f32, -2.0, -1.8]);
        let rows = lab.room::<f16>(frames * side * side * columns);
        let arguments = arguments![
            &lab.put(&pixels),
            &rows,
            scale[0],
            scale[1],
            scale[2],
            shift[0],
            shift[1],
            shift[2],
            frames,
            size,
            patch,
            columns
        ];
        lab.per_thread("patch_rows", rows.len / 8, arguments);
        let value = |frame: usize, place: usize, column: usize| {
            let (channel, y, x) = (column / patch / patch, column / patch % patch, column % patch);
            if channel > 2 {
                return 0.0;
            }
            let (y, x) = (place / side * patch + y, place % side * patch + x);
            let level = f64::from(pixels[((frame * size + y) * size + x) * 3 + channel]);
            level * f64::from(scale[channel]) + f64::from(shift[channel])
        };
        let all = (0..frames).flat_map(|f| (0..side * side).map(move |p| (f, p)));
        let expected: Vec<f64> = all.flat_map(|(f, p)| (0..columns).map(move |c| value(f, p, c))).collect();
        assert_close(&lab.get_halves(&rows), &expected, 1e-6, &format!("patch {patch}"));
    }
}

#[test]
fn embed_puts_the_class_row_first_and_normalises() {
    let Some(lab) = Lab::open() else { return };
    let mut noise = Noise(5);
    for (frames, patches, width) in [(1, 1, 96), (3, 4, 104), (2, 7, 1280)] {
        let rows = noise.halves(frames * patches * width, 1.0);
        let [class, gain, bias] = [1.0, 1.5, 0.5].map(|size| noise.floats(width, size));
        let positions = noise.floats(patches * width, 0.3);
        let x = lab.room::<f16>(frames * (patches + 1) * width);
        let arguments = arguments![
            &lab.put_halves(&rows),
            &lab.put(&class),
            &lab.put(&positions),
            &lab.put(&gain),
            &lab.put(&bias),
            &x,
            frames,
            patches,
            width,
            EPSILON
        ];
        lab.per_warp("embed", frames * (patches + 1), arguments);
        let mut expected = Vec::new();
        for frame in rows.chunks(patches * width) {
            expected.extend(layer_norm(&wide(&class), &gain, &bias));
            for (row, position) in frame.chunks(width).zip(positions.chunks(width)) {
                let sum: Vec<f64> =
                    row.iter().zip(position).map(|(r, p)| f64::from(*r) + f64::from(*p)).collect();
                expected.extend(layer_norm(&sum, &gain, &bias));
            }
        }
        assert_close(&lab.get_halves(&x), &expected, 1e-6, &format!("{frames}x{patches}x{width}"));
    }
}

#[test]
fn patch_mean_leaves_out_class_rows() {
    let Some(lab) = Lab::open() else { return };
    let mut noise = Noise(6);
    for (clips, frames, tokens, width) in [(1, 1, 2, 96), (2, 5, 4, 104), (1, 64, 3, 768), (3, 8, 2, 1280)] {
        let x = noise.halves(clips * frames * tokens * width, 2.0);
        let (gain, bias) = (noise.floats(width, 1.5), noise.floats(width, 0.5));
        let out = lab.room::<f16>(clips * (tokens - 1) * width);
        let arguments = arguments![
            &lab.put_halves(&x),
            &lab.put(&gain),
            &lab.put(&bias),
            &out,
            clips,
            frames,
            tokens,
            width,
            EPSILON
        ];
        let warps = frames.min(8);
        lab.launch("patch_mean", [clips * (tokens - 1), 1, 1], 32 * warps, 4 * warps * width, arguments);
        let mut expected = vec![0.0; out.len];
        for (i, row) in x.chunks(width).enumerate().filter(|(i, _)| i % tokens > 0) {
            let to = (i / tokens / frames * (tokens - 1) + i % tokens - 1) * width;
            for (sum, value) in expected[to..].iter_mut().zip(layer_norm(&wide(row), &gain, &bias)) {
                *sum += value / frames as f64;
            }
        }
        assert_close(&lab.get_halves(&out), &expected, 1e-6, &format!("{clips}x{frames}x{tokens}x{width}"));
    }
}

#[test]
fn the_mits_ends_add_positions_and_average() {
    let Some(lab) = Lab::open() else { return };
    let mut noise = Noise(7);
    for (clips, frames, width) in [(1, 1, 8), (3, 5, 104), (2, 64, 512)] {
        let (hidden, features) =
            (noise.halves(clips * frames * width, 2.0), noise.halves(clips * frames * width, 2.0));
        let positions = noise.floats(frames * width, 0.5);
        let (h, f) = (lab.put_halves(&hidden), lab.put_halves(&features));
        let (out, video) = (lab.room::<f16>(features.len()), lab.room::<f32>(clips * width));
        let arguments = arguments![&f, &lab.put(&positions), &out, clips, frames, width];
        lab.per_thread("add_positions", features.len() / 8, arguments);
        let sum = |i: usize| f64::from(features[i]) + f64::from(positions[i % positions.len()]);
        let expected: Vec<f64> = (0..features.len()).map(sum).collect();
        assert_close(&lab.get_halves(&out), &expected, 1e-6, "add_positions");

        lab.per_thread("mit_pool", clips * width / 8, arguments![&h, &f, &video, clips, frames, width]);
        let mean = |at: usize| {
            let (clip, column) = (at / width, at % width);
            let both = (0..frames).map(|t| (clip * frames + t) * width + column);
            both.map(|i| f64::from(hidden[i]) + f64::from(features[i])).sum::<f64>() / frames as f64
        };
        let expected: Vec<f64> = (0..video.len).map(mean).collect();
        let found = wide(&lab.get::<f32>(&video));
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 4e-6, "mit_pool: {worst}");
    }
}

#[test]
fn embed_tokens_adds_each_rows_own_position() {
    let Some(lab) = Lab::open() else { return };
    let (mut noise, rows, width, vocabulary, context) = (Noise(8), 9, 104, 50, 16);
    let (tokens, positions) = (noise.halves(vocabulary * width, 1.0), noise.floats(context * width, 0.5));
    let ids: Vec<i32> = (0..rows).map(|_| noise.word() as i32 % vocabulary as i32).collect();
    let places: Vec<i32> = (0..rows as i32).map(|i| i * 5 % context as i32).collect();
    let x = lab.room::<f16>(rows * width);
    let arguments = arguments![
        &lab.put(&ids),
        &lab.put(&places),
        &lab.put_halves(&tokens),
        &lab.put(&positions),
        &x,
        rows,
        width
    ];
    lab.per_thread("embed_tokens", rows * width / 8, arguments);
    let value = |i: usize| {
        let (row, column) = (i / width, i % width);
        let token = tokens[ids[row] as usize * width + column];
        f64::from(token) + f64::from(positions[places[row] as usize * width + column])
    };
    let expected: Vec<f64> = (0..rows * width).map(value).collect();
    assert_close(&lab.get_halves(&x), &expected, 1e-6, "embed_tokens");
}

#[test]
fn rows_are_gathered_and_scattered_unchanged() {
    let Some(lab) = Lab::open() else { return };
    let (mut noise, count, all) = (Noise(9), 5, 11);
    for width in [8, 104, 2504] {
        let bits = |n: usize, noise: &mut Noise| (0..n).map(|_| noise.word() as u16).collect::<Vec<_>>();
        let (x, before) = (bits(all * width, &mut noise), bits(all * width, &mut noise));
        let rows = [3i32, 10, 0, 7, 4];
        let out = lab.room::<u16>(count * width);
        let arguments = arguments![&lab.put(&x), &lab.put(&rows), &out, count, width];
        lab.per_thread("gather_rows", count * width / 8, arguments);
        let gathered = lab.get::<u16>(&out);
        for (row, from) in gathered.chunks(width).zip(rows) {
            assert_eq!(row, &x[from as usize * width..][..width]);
        }
        let (mut expected, places) = (before.clone(), [3i32, -1, 0, 7, 10]);
        let target = lab.put(&before);
        let arguments = arguments![&out, &lab.put(&places), &target, count, width];
        lab.per_thread("scatter_rows", count * width / 8, arguments);
        for (row, to) in gathered.chunks(width).zip(places).filter(|(_, to)| *to >= 0) {
            expected[to as usize * width..][..width].copy_from_slice(row);
        }
        assert_eq!(lab.get::<u16>(&target), expected);
    }
}

/// LayerNorm, bias, activation and sum each on and off.
#[test]
fn a_product_of_few_rows_is_layer_norm_product_and_activation() {
    let Some(lab) = Lab::open() else { return };
    let mut noise = Noise(10);
    let cases =
        [(1, 96, 8, 96), (8, 512, 104, 512), (17, 104, 24, 2080), (32, 1280, 16, 1280), (5, 3072, 8, 3072)];
    for (i, (rows, ins, outs, stride)) in cases.into_iter().enumerate() {
        for options in 0..16 {
            let [normed, biased, gelu, add] = [1, 2, 4, 8].map(|bit| options & bit != 0);
            // All sixteen on the first shape, some on each other.
            if (normed && ins > 1280) || (i > 0 && (options + i) % 5 != 0) {
                continue;
            }
            let x = noise.halves((rows - 1) * stride + ins, 1.0);
            let (gain, shift) = (noise.floats(ins, 1.5), noise.floats(ins, 0.5));
            let (weight, bias) = (noise.halves(outs * ins, 0.1), noise.halves(outs, 1.0));
            let before = noise.halves(rows * outs, 1.0);
            let y = lab.put_halves(&before);
            let (g, s, b) = (lab.put(&gain), lab.put(&shift), lab.put_halves(&bias));
            let given = |on: bool, argument: Argument| if on { argument } else { NULL };
            let arguments = [
                (&lab.put_halves(&x)).into(),
                stride.into(),
                given(normed, (&g).into()),
                given(normed, (&s).into()),
                (&lab.put_halves(&weight)).into(),
                given(biased, (&b).into()),
                (&y).into(),
                rows.into(),
                ins.into(),
                outs.into(),
                usize::from(gelu).into(),
                usize::from(add).into(),
                EPSILON.into(),
            ];
            lab.launch("few_rows_product", [outs / 8, 1, 1], 256, 0, &arguments);
            let (mut expected, mut most) = (Vec::new(), 0f64);
            for (r, before) in before.chunks(outs).enumerate() {
                let mut row = wide(&x[r * stride..][..ins]);
                if normed {
                    row = layer_norm(&row, &gain, &shift);
                }
                for (o, before) in before.iter().enumerate() {
                    let terms = row.iter().zip(&weight[o * ins..]).map(|(x, w)| x * f64::from(*w));
                    let size: f64 = terms.clone().map(f64::abs).sum();
                    let sum = terms.sum::<f64>() + if biased { f64::from(bias[o]) } else { 0.0 };
                    let value = if gelu { quick_gelu(sum) } else { sum };
                    expected.push(value + if add { f64::from(*before) } else { 0.0 });
                    most = most.max(size);
                }
            }
            // What a row's rounding to f16 moves, relative to the sum of the terms' sizes.
            let largest = expected.iter().fold(0f64, |m, v| m.max(v.abs()));
            let relative = (if normed { 0.5 / 1024.0 } else { 2e-6 }) * most / largest;
            let what = format!("{rows}x{ins}x{outs}, {normed} {biased} {gelu} {add}");
            assert_close(&lab.get_halves(&y), &expected, relative, &what);
        }
    }
}
