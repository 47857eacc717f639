//! xclipd: arguments → one function call each.

use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};
use gstxclip::command::{self, Verdict};

/// Zero-shot action events from video: say in plain words what to watch for.
#[derive(Parser)]
#[command(version, after_help = command::EXIT_STATUSES, max_term_width = 100)]
struct Arguments {
    /// More log on stderr: -v what happens, -vv details. RUST_LOG overrides.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// Look for CUDA's libraries here first (or in a Python site-packages with NVIDIA's wheels)
    #[arg(long, global = true, value_name = "FOLDER")]
    cuda_lib_dir: Option<std::path::PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[cfg(feature = "gst")]
    Detect(command::detect::Detect),
    Doctor(command::doctor::Doctor),
    Scene(command::scene::Scene),
    Eval(command::eval::Eval),
    #[cfg(feature = "gst")]
    Calibrate(command::calibrate::Calibrate),
    Verify(command::checkpoint::Verify),
    Bench(command::checkpoint::Bench),
    GenerateWeights(command::checkpoint::GenerateWeights),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    command::start_log(arguments.verbose);
    if let Some(folder) = &arguments.cuda_lib_dir {
        gstxclip::backend::look_for_cuda_in(folder);
    }
    let verdict = match arguments.command {
        #[cfg(feature = "gst")]
        Command::Detect(detect) => detect.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Scene(scene) => scene.run(),
        Command::Eval(eval) => eval.run(),
        #[cfg(feature = "gst")]
        Command::Calibrate(calibrate) => calibrate.run(),
        Command::Verify(verify) => verify.run(),
        Command::Bench(bench) => bench.run(),
        Command::GenerateWeights(generate) => generate.run(),
    };
    match verdict {
        Ok(Verdict::Pass) => ExitCode::SUCCESS,
        Ok(Verdict::Fail) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xclipd: {error}");
            ExitCode::FAILURE
        }
    }
}
