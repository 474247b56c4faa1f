//! The device itself: memory, copies, and what is said when the driver refuses.

use crate::host::{ask, gpu};
use ddpm_kernels::{Backend, ptx};
use ddpm_tensor::cuda::{Arguments, Launch, Source};
use ddpm_tensor::{Cuda, Device, Precision, Tensor};

#[test]
fn numbers_come_back_from_every_kind_of_copy() {
    let cuda = gpu();
    let values: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let x = Tensor::from_slice(&cuda, [10, 100], &values).unwrap();
    assert_eq!(x.to_vec(&cuda).unwrap(), values);
    let mut y = cuda.zeros(300).unwrap();
    cuda.copy(x.view().buffer(), 50..250, &mut y, 7).unwrap();
    let mut host = vec![f32::NAN; 210];
    cuda.download(&y, 0..210, &mut host).unwrap();
    assert_eq!(host[..7], [0.0; 7]);
    assert_eq!(host[7..207], values[50..250]);
    assert_eq!(host[207..], [0.0; 3]);
    let nothing = Tensor::from_slice(&cuda, [0, 3], &[]).unwrap();
    assert!(nothing.to_vec(&cuda).unwrap().is_empty());
    let integers = cuda.upload_values(&[1u64 << 40, 7]).unwrap();
    assert_eq!(cuda.download_values::<u64>(&integers, 2).unwrap(), [1 << 40, 7]);
    assert!(cuda.copy(&y, 200..301, &mut cuda.zeros(300).unwrap(), 0).is_err());
    assert!(cuda.upload(&values, &mut y, 0).is_err());
    assert!(cuda.download(&y, 0..3, &mut [0.0; 2]).is_err());
}

#[test]
fn memory_is_kept_between_steps_and_given_back_at_the_end() {
    let cuda = gpu();
    let step = || {
        let a = Tensor::<Cuda>::zeros(&cuda, [1000]).unwrap();
        let b = cuda.affine(a.view(), 2.0, 1.0).unwrap();
        b.to_vec(&cuda).unwrap()[999]
    };
    assert_eq!(step(), 1.0);
    let peak = cuda.peak_bytes();
    ask("allocations", 0);
    assert_eq!(step(), 1.0);
    ask("allocations", -1);
    assert_eq!(cuda.peak_bytes(), peak);
}

#[test]
fn out_of_memory_says_what_was_asked_and_what_is_free() {
    let cuda = gpu();
    ask("memory", 1 << 20);
    let message = cuda.alloc(1 << 20).unwrap_err().to_string();
    ask("memory", 1 << 33);
    assert!(message.starts_with("CUDA: 4194304 bytes were asked for, "), "{message}");
    assert!(message.contains(" of 1048576 are free") && message.contains("CUDA_ERROR_OUT_OF_MEMORY"), "{message}");
    // spare memory is given back before a refusal is believed
    drop(cuda.alloc(1 << 10).unwrap());
    ask("allocations", 0);
    assert!(cuda.alloc(1 << 12).is_err());
    ask("allocations", -1);
    assert!(cuda.alloc(1 << 12).is_ok());
}

#[test]
fn a_launch_that_fails_names_its_kernel() {
    let cuda = gpu();
    let x = Tensor::<Cuda>::zeros(&cuda, [1000]).unwrap();
    ask("launches", 0);
    let message = cuda.affine(x.view(), 1.0, 0.0).unwrap_err().to_string();
    ask("launches", -1);
    let expected = "CUDA: launching `affine_f32` with 1x1x1 blocks of 256 threads and 0 bytes: \
                    CUDA_ERROR_LAUNCH_FAILED (unspecified launch failure)";
    assert_eq!(message, expected);
}

#[test]
fn a_driver_that_refuses_the_ptx_is_named_with_the_module() {
    let cuda = gpu();
    let x = Tensor::<Cuda>::zeros(&cuda, [8]).unwrap();
    ask("ptx", 0);
    let message = cuda.pixel_sums(x.view()).unwrap_err().to_string();
    ask("ptx", 1);
    assert!(
        message.starts_with("CUDA: loading the kernels of `sums`: CUDA_ERROR_UNSUPPORTED_PTX_VERSION"),
        "{message}"
    );
}

#[test]
fn arguments_that_are_not_the_kernels_are_refused_before_they_are_launched() {
    let cuda = gpu();
    let refused = |kernel, arguments| {
        // SAFETY: never launched: the sizes of the arguments are wrong, or there is no such kernel.
        unsafe { cuda.launch(ptx::SUMS.into(), kernel, Launch::over(1), &arguments) }.unwrap_err().to_string()
    };
    let message = refused("affine_f32", Arguments::new().value(1u32));
    assert!(message.contains("it takes arguments of [8, 8, 4, 4, 8] bytes, but [4] came"), "{message}");
    let message = refused("affine", Arguments::new());
    assert!(message.contains("finding the kernel `affine` in `sums`"), "{message}");
    let missing = Source { name: "missing", ptx: ".version 7.8\n.target sm_75\n.visible .entry none(\n)\n" };
    // SAFETY: never launched: the driver finds no such kernel.
    let error = unsafe { cuda.launch(missing, "none", Launch::over(1), &Arguments::new()) }.unwrap_err().to_string();
    assert!(error.contains("finding the kernel `none`: CUDA_ERROR_NOT_FOUND"), "{error}");
}

#[test]
fn devices_that_cannot_be_used_are_refused_in_one_line() {
    drop(gpu());
    let refused = |name, value, usual| {
        ask(name, value);
        let line = Cuda::new(0, Precision::Strict).unwrap_err().to_string();
        ask(name, usual);
        assert_eq!(line.lines().count(), 1);
        line
    };
    assert_eq!(refused("devices", 0, 1), "no CUDA device: the driver is there, but it finds no device");
    assert_eq!(
        refused("driver", 11040, 12040),
        "no CUDA device: the driver is one of CUDA 11.4, and 11.8 (driver 520) or later is needed"
    );
    let line = refused("capability", 61, 80);
    assert!(line.ends_with("has compute capability 6.1, and 7.5 or more is needed"), "{line}");
    let line = Cuda::new(3, Precision::Strict).unwrap_err().to_string();
    assert_eq!(line, "no CUDA device: there is no GPU 3: this machine has 1");
}
