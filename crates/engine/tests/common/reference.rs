//! The model families again, in the plainest way, in double precision: what the engine is held to.

use plumb_gguf::{Gguf, dequant};

type Row = Vec<f64>;

/// Logits of every position of `tokens`.
pub fn logits(gguf: &Gguf, tokens: &[u32]) -> Vec<Row> {
    let model = Reference { gguf, arch: gguf.architecture() };
    let embedding = model.rows("token_embd.weight");
    let scale = if model.gemma() { (embedding[0].len() as f64).sqrt() } else { 1.0 };
    let mut x: Vec<Row> = tokens
        .iter()
        .map(|&token| embedding[token as usize].iter().map(|v| v * scale).collect())
        .collect();
    for layer in 0..model.size("block_count") {
        model.layer(layer, &mut x);
    }
    let norm = model.vector("output_norm.weight").unwrap();
    let head = if gguf.tensor("output.weight").is_some() {
        model.rows("output.weight")
    } else {
        embedding
    };
    x.iter().map(|row| times(&head, &model.norm(row, &norm))).collect()
}

struct Reference<'a> {
    gguf: &'a Gguf,
    arch: &'a str,
}

impl Reference<'_> {
    fn gemma(&self) -> bool {
        self.arch == "gemma3"
    }

    fn size(&self, key: &str) -> usize {
        self.gguf.u32(&format!("{}.{key}", self.arch)).unwrap() as usize
    }

    fn number(&self, key: &str, default: f64) -> f64 {
        self.gguf.f32(&format!("{}.{key}", self.arch)).map_or(default, f64::from)
    }

    fn rows(&self, name: &str) -> Vec<Row> {
        let tensor = self.gguf.tensor(name).unwrap();
        let width = tensor.dims[0];
        let data = self.gguf.data(tensor).chunks_exact(tensor.ty.row_bytes(width).unwrap());
        let row = |bytes| {
            let mut out = vec![0.0; width];
            dequant::row(tensor.ty, bytes, &mut out);
            out.into_iter().map(f64::from).collect()
        };
        data.map(row).collect()
    }

    fn vector(&self, name: &str) -> Option<Row> {
        self.gguf.tensor(name).map(|_| self.rows(name).remove(0))
    }

    fn norm(&self, x: &[f64], weight: &[f64]) -> Row {
        let square = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
        let scale = (square + self.number("attention.layer_norm_rms_epsilon", 0.0)).sqrt();
        x.iter().zip(weight).map(|(v, w)| v / scale * w).collect()
    }

    fn layer(&self, layer: usize, x: &mut [Row]) {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        let normalised = |x: &[Row], part: &str| -> Vec<Row> {
            let weight = self.vector(&name(part)).unwrap();
            x.iter().map(|row| self.norm(row, &weight)).collect()
        };
        let add = |x: &mut [Row], y: Vec<Row>, part: &str| {
            let weight = self.vector(&name(part));
            for (x, y) in x.iter_mut().zip(y) {
                let y = weight.as_ref().map_or(y.clone(), |weight| self.norm(&y, weight));
                x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
            }
        };
        let attended = self.attention(layer, &normalised(x, "attn_norm"));
        add(x, attended, "post_attention_norm");
        let n = normalised(x, "ffn_norm");
        let (gate, up, down) = (
            self.rows(&name("ffn_gate")),
            self.rows(&name("ffn_up")),
            self.rows(&name("ffn_down")),
        );
        let fed = n.iter().map(|row| {
            let hidden = times(&gate, row)
                .iter()
                .zip(times(&up, row))
                .map(|(g, u)| self.gate(*g) * u)
                .collect::<Row>();
            times(&down, &hidden)
        });
        let fed = fed.collect();
        add(x, fed, "post_ffw_norm");
    }

    fn gate(&self, x: f64) -> f64 {
        if self.gemma() {
            let z = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            0.5 * x * (1.0 + z.tanh())
        } else {
            x / (1.0 + (-x).exp())
        }
    }

    fn attention(&self, layer: usize, n: &[Row]) -> Vec<Row> {
        let (heads, kv_heads) =
            (self.size("attention.head_count"), self.size("attention.head_count_kv"));
        let dim = self.size("attention.key_length");
        let window = match self.gguf.u32(&format!("{}.attention.sliding_window", self.arch)) {
            Ok(window) if self.gemma() && layer % 6 < 5 => Some(window as usize),
            _ => None,
        };
        let q = self.heads(layer, "q", n, dim, window.is_some());
        let k = self.heads(layer, "k", n, dim, window.is_some());
        let v = self.heads(layer, "v", n, dim, false);
        let output = self.rows(&format!("blk.{layer}.attn_output.weight"));
        let row = |t: usize| {
            let first = window.map_or(0, |window| (t + 1).saturating_sub(window));
            let mut all = Row::new();
            for (head, q) in q[t].iter().enumerate() {
                let kv = head / (heads / kv_heads);
                let scores: Row =
                    (first..=t).map(|s| (dot(q, &k[s][kv]) / (dim as f64).sqrt()).exp()).collect();
                let sum: f64 = scores.iter().sum();
                let weighted = |i: usize| {
                    (first..=t).map(|s| scores[s - first] / sum * v[s][kv][i]).sum::<f64>()
                };
                all.extend((0..dim).map(weighted));
            }
            times(&output, &all)
        };
        (0..n.len()).map(row).collect()
    }

    /// `[token][head][element]` of q, k or v.
    fn heads(
        &self,
        layer: usize,
        part: &str,
        n: &[Row],
        dim: usize,
        windowed: bool,
    ) -> Vec<Vec<Row>> {
        let weight = self.rows(&format!("blk.{layer}.attn_{part}.weight"));
        let bias = self.vector(&format!("blk.{layer}.attn_{part}.bias"));
        let norm = self.vector(&format!("blk.{layer}.attn_{part}_norm.weight"));
        let token = |(position, row): (usize, &Row)| {
            let mut all = times(&weight, row);
            if let Some(bias) = &bias {
                all.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
            }
            let head = |head: &[f64]| {
                let head = norm.as_ref().map_or(head.to_vec(), |norm| self.norm(head, norm));
                if part == "v" { head } else { self.rotate(&head, position, windowed) }
            };
            all.chunks_exact(dim).map(head).collect()
        };
        n.iter().enumerate().map(token).collect()
    }

    fn rotate(&self, head: &[f64], position: usize, windowed: bool) -> Row {
        let pairs = head.len() / 2;
        let base = if windowed { 10_000.0 } else { self.number("rope.freq_base", 10_000.0) };
        let factor = if windowed { 1.0 } else { self.number("rope.scaling.factor", 1.0) };
        let divisors = self.vector("rope_freqs.weight").unwrap_or(vec![1.0; pairs]);
        let mut out = head.to_vec();
        for (pair, divisor) in divisors.iter().enumerate() {
            let turns = base.powf(-(pair as f64) / pairs as f64) / divisor / factor;
            let (sine, cosine) = (position as f64 * turns).sin_cos();
            let (a, b) =
                if self.arch == "llama" { (2 * pair, 2 * pair + 1) } else { (pair, pair + pairs) };
            out[a] = head[a] * cosine - head[b] * sine;
            out[b] = head[a] * sine + head[b] * cosine;
        }
        out
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn times(rows: &[Row], x: &[f64]) -> Row {
    rows.iter().map(|row| dot(row, x)).collect()
}
