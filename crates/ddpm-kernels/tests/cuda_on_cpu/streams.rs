//! The stand-in driver's streams: nothing is done before somebody waits for it.

use crate::host::{ask, gpu};
use crate::{driver_folder, stand_in};
use ddpm_tensor::Cuda;
use std::ffi::{c_int, c_uint, c_void};
use std::ptr;

type Handle = *mut c_void;
const ILLEGAL_ADDRESS: c_int = 700;
const NOT_READY: c_int = 600;

/// The driver's functions, called as a program would.
struct Driver {
    library: libloading::Library,
    /// Holds the context.
    _cuda: Cuda,
}

impl Driver {
    fn new() -> Self {
        let cuda = gpu();
        // SAFETY: the library is loaded already; all that loading does is to register kernels.
        let library = unsafe { libloading::Library::new(driver_folder().join(stand_in::LIBRARY)) }.unwrap();
        Self { library, _cuda: cuda }
    }

    /// # Safety
    /// `F` must be the function's type.
    unsafe fn get<F: Copy>(&self, name: &str) -> F {
        // SAFETY: the caller's promise.
        *unsafe { self.library.get(name.as_bytes()) }.unwrap()
    }

    fn stream(&self) -> Handle {
        let mut stream = ptr::null_mut();
        // SAFETY: the function has this type, and writes a handle.
        let code = unsafe {
            self.get::<unsafe extern "C" fn(*mut Handle, c_uint) -> c_int>("cuStreamCreate")(&raw mut stream, 0)
        };
        assert_eq!(code, 0);
        stream
    }

    fn event(&self) -> Handle {
        let mut event = ptr::null_mut();
        // SAFETY: the function has this type, and writes a handle.
        let code = unsafe {
            self.get::<unsafe extern "C" fn(*mut Handle, c_uint) -> c_int>("cuEventCreate")(&raw mut event, 0)
        };
        assert_eq!(code, 0);
        event
    }

    fn alloc(&self) -> u64 {
        let mut address = 0;
        // SAFETY: the function has this type, and writes an address.
        let code =
            unsafe { self.get::<unsafe extern "C" fn(*mut u64, usize) -> c_int>("cuMemAlloc_v2")(&raw mut address, 4) };
        assert_eq!(code, 0);
        address
    }

    fn free(&self, address: u64) -> c_int {
        // SAFETY: the function has this type; the driver refuses what it did not allocate.
        unsafe { self.get::<unsafe extern "C" fn(u64) -> c_int>("cuMemFree_v2")(address) }
    }

    /// A number in memory of the host that is never paged out.
    fn pinned(&self, value: u32) -> *mut u32 {
        let mut memory = ptr::null_mut::<u32>();
        type Function = unsafe extern "C" fn(*mut *mut u32, usize, c_uint) -> c_int;
        // SAFETY: the function has this type, and gives memory for four bytes.
        unsafe {
            assert_eq!(self.get::<Function>("cuMemHostAlloc")(&raw mut memory, 4, 0), 0);
            *memory = value;
        }
        memory
    }

    fn free_pinned(&self, memory: *mut u32) -> c_int {
        // SAFETY: the function has this type; the driver refuses what it did not allocate.
        unsafe { self.get::<unsafe extern "C" fn(*mut u32) -> c_int>("cuMemFreeHost")(memory) }
    }

    fn upload(&self, to: u64, from: *const u32, stream: Handle) {
        type Function = unsafe extern "C" fn(u64, *const u32, usize, Handle) -> c_int;
        // SAFETY: the function has this type; `from` is four bytes that outlive the stream's work.
        assert_eq!(unsafe { self.get::<Function>("cuMemcpyHtoDAsync_v2")(to, from, 4, stream) }, 0);
    }

    fn copy(&self, to: u64, from: u64, stream: Handle) {
        type Function = unsafe extern "C" fn(u64, u64, usize, Handle) -> c_int;
        // SAFETY: the function has this type; the driver refuses addresses outside of allocations.
        assert_eq!(unsafe { self.get::<Function>("cuMemcpyDtoDAsync_v2")(to, from, 4, stream) }, 0);
    }

    fn download(&self, to: *mut u32, from: u64, stream: Handle) {
        type Function = unsafe extern "C" fn(*mut u32, u64, usize, Handle) -> c_int;
        // SAFETY: the function has this type; `to` is four bytes that outlive the stream's work.
        assert_eq!(unsafe { self.get::<Function>("cuMemcpyDtoHAsync_v2")(to, from, 4, stream) }, 0);
    }

    /// `cuStreamSynchronize`, `cuEventQuery` and other functions of one handle.
    fn call(&self, name: &str, handle: Handle) -> c_int {
        // SAFETY: the functions that tests name have this type, and the handle is of their kind.
        unsafe { self.get::<unsafe extern "C" fn(Handle) -> c_int>(name)(handle) }
    }

    /// `cuEventRecord(event, stream)`.
    fn record(&self, event: Handle, stream: Handle) {
        // SAFETY: the function has this type.
        let code = unsafe { self.get::<unsafe extern "C" fn(Handle, Handle) -> c_int>("cuEventRecord")(event, stream) };
        assert_eq!(code, 0);
    }

    /// `cuStreamWaitEvent(stream, event)`.
    fn wait(&self, stream: Handle, event: Handle) {
        type Function = unsafe extern "C" fn(Handle, Handle, c_uint) -> c_int;
        // SAFETY: the function has this type.
        assert_eq!(unsafe { self.get::<Function>("cuStreamWaitEvent")(stream, event, 0) }, 0);
    }

    /// Waits for everything of this thread.
    fn synchronize(&self) -> c_int {
        // SAFETY: the function has this type.
        unsafe { self.get::<unsafe extern "C" fn() -> c_int>("cuCtxSynchronize")() }
    }
}

/// What lies there, read anew.
fn read(memory: *const u32) -> u32 {
    // SAFETY: the tests hand in memory that is theirs and not freed.
    unsafe { ptr::read_volatile(memory) }
}

#[test]
fn copies_read_and_write_the_hosts_memory_when_they_are_waited_for() {
    let driver = Driver::new();
    let (stream, device) = (driver.stream(), driver.alloc());
    let (pinned, mut usual, mut back) = (driver.pinned(1), 1u32, 7u32);
    driver.upload(device, pinned, stream);
    // SAFETY: four bytes of ours.
    unsafe { *pinned = 2 };
    driver.download(&raw mut back, device, stream);
    assert_eq!(read(&raw const back), 7);
    assert_eq!(driver.call("cuStreamSynchronize", stream), 0);
    assert_eq!(read(&raw const back), 2, "pinned memory is read late");
    driver.upload(device, &raw const usual, stream);
    usual += 1;
    driver.download(&raw mut back, device, stream);
    assert_eq!(driver.synchronize(), 0);
    assert_eq!((read(&raw const back), usual), (1, 2), "other memory is read at once");
    assert_eq!((driver.free(device), driver.free_pinned(pinned)), (0, 0));
    assert_eq!(driver.call("cuStreamDestroy_v2", stream), 0);
    assert_eq!(driver.call("cuStreamSynchronize", stream), 1, "a stream that has ended is none");
}

#[test]
fn an_event_orders_two_streams_and_nothing_else_does() {
    let driver = Driver::new();
    let (one, two) = (driver.stream(), driver.stream());
    let (a, b, first, second) = (driver.alloc(), driver.alloc(), driver.pinned(1), driver.pinned(2));
    let mut back = 0;
    let mut run = |event: Option<Handle>, seed| {
        ask("seed", seed);
        driver.upload(a, second, one);
        assert_eq!(driver.synchronize(), 0);
        driver.upload(a, first, one);
        if let Some(event) = event {
            driver.record(event, one);
            assert_eq!(driver.call("cuEventQuery", event), NOT_READY);
            driver.wait(two, event);
        }
        driver.copy(b, a, two);
        assert_eq!(driver.synchronize(), 0);
        driver.download(&raw mut back, b, two);
        assert_eq!(driver.call("cuStreamSynchronize", two), 0);
        read(&raw const back)
    };
    let free: Vec<_> = (0..16).map(|seed| run(None, seed)).collect();
    assert!(free.contains(&1) && free.contains(&2), "{free:?}");
    let event = driver.event();
    assert!((0..16).all(|seed| run(Some(event), seed) == 1));
    assert_eq!((driver.call("cuEventQuery", event), driver.call("cuEventSynchronize", event)), (0, 0));
    // waiting for one stream alone does not do another's work, but for what it waits for
    driver.upload(a, second, one);
    driver.copy(b, a, two);
    driver.download(&raw mut back, b, two);
    assert_eq!(driver.call("cuStreamSynchronize", two), 0);
    assert_eq!(read(&raw const back), 1);
    driver.record(event, one);
    driver.wait(two, event);
    driver.copy(b, a, two);
    driver.download(&raw mut back, b, two);
    assert_eq!(driver.call("cuStreamSynchronize", two), 0);
    assert_eq!(read(&raw const back), 2);
    ask("seed", 0);
}

#[test]
fn memory_that_is_given_up_too_soon_is_reported() {
    let driver = Driver::new();
    let (stream, a, b) = (driver.stream(), driver.alloc(), driver.alloc());
    driver.copy(b, a, stream);
    assert_eq!(driver.free(a), ILLEGAL_ADDRESS);
    assert_eq!(driver.call("cuStreamSynchronize", stream), ILLEGAL_ADDRESS, "the stream has failed");
    assert_eq!(driver.free(a), 0, "nothing names it any more");
    let (stream, pinned) = (driver.stream(), driver.pinned(1));
    driver.upload(b, pinned, stream);
    assert_eq!(driver.free_pinned(pinned), ILLEGAL_ADDRESS);
    assert_eq!(driver.call("cuStreamSynchronize", stream), ILLEGAL_ADDRESS);
    assert_eq!((driver.free_pinned(pinned), driver.free(b)), (0, 0));
}

#[test]
fn spare_memory_is_given_up_when_nothing_queued_names_it() {
    use ddpm_kernels::Backend;
    use ddpm_tensor::{Device, Tensor};
    let cuda = gpu();
    let x = Tensor::<Cuda>::zeros(&cuda, [1000]).unwrap();
    // queued, and its result spare at once
    drop(cuda.affine(x.view(), 2.0, 1.0).unwrap());
    ask("allocations", 0);
    // no memory: the spare buffers go back to the driver
    assert!(cuda.alloc(1 << 20).is_err());
    ask("allocations", -1);
    assert_eq!(x.to_vec(&cuda).unwrap(), [0.0; 1000]);
}
