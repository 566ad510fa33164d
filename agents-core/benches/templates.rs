//! What the worst plans that are admitted cost: of each known way to make a rendering expensive as much as the budget
//! has room for. Started by `cargo xtask bench templates`; times stand beside their target and fail nothing.

#![expect(clippy::print_stdout, reason = "the result is what it is started for")]

mod adversary;

use std::fs;

/// What one decision may take, in milliseconds.
const TARGET: f64 = 100.0;
/// How many are shown.
const SHOWN: usize = 12;

/// Time of this thread on a processor, in milliseconds.
fn cpu() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts the time of threads");
    let nanoseconds = text.split(' ').next().and_then(|text| text.parse::<f64>().ok());
    nanoseconds.expect("a number of nanoseconds") / 1e6
}

fn main() {
    let mut rows: Vec<_> = adversary::kinds()
        .iter()
        .map(|kind| {
            let (mut admitted, mut refused) = (0, kind.most + 1);
            while admitted + 1 < refused {
                let middle = usize::midpoint(admitted, refused);
                if kind.repeated(middle).decide().is_ok() {
                    admitted = middle;
                } else {
                    refused = middle;
                }
            }
            // The least of some: everything that disturbs adds to it.
            let least = |times: usize| {
                let case = kind.repeated(times);
                let once = || {
                    let began = cpu();
                    // A refusal is measured as well.
                    let _ = case.decide();
                    cpu() - began
                };
                (0..5).map(|_| once()).fold(f64::INFINITY, f64::min)
            };
            (least(admitted), least(refused.min(kind.most)), admitted, kind.name)
        })
        .collect();
    rows.sort_by(|one, other| other.0.total_cmp(&one.0));
    println!("CPU of a decision about the worst plans that are admitted; target: at most {TARGET} ms");
    println!("  admitted   one more");
    for (admitted, refused, times, name) in rows.iter().take(SHOWN) {
        println!("{admitted:7.1} ms {refused:7.1} ms  {name}, {times} times");
    }
    let refused = rows.iter().map(|row| row.1).fold(0.0, f64::max);
    println!("{} ways; the dearest refusal takes {refused:.1} ms", rows.len());
}
