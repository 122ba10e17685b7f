//! CUDA's error codes, which the two libraries share, with the names that each has for them.

/// A code that a call gives back; 0 is success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub i32);

/// What a call comes to.
pub type Call<T = ()> = Result<T, Status>;

/// Code, name in the runtime, name in the driver, and the text of both.
type Row = (i32, &'static str, &'static str, &'static str);

macro_rules! statuses {
    ($($constant:ident = $code:literal, $runtime:literal, $driver:literal, $text:literal;)*) => {
        impl Status {
            $(pub const $constant: Status = Status($code);)*
        }
        const ROWS: &[Row] = &[$(($code, $runtime, $driver, $text),)*];
    };
}

statuses! {
    SUCCESS = 0, "cudaSuccess", "CUDA_SUCCESS", "no error";
    INVALID_VALUE = 1, "cudaErrorInvalidValue", "CUDA_ERROR_INVALID_VALUE", "invalid argument";
    OUT_OF_MEMORY = 2, "cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY", "out of memory";
    INVALID_CONFIGURATION = 9, "cudaErrorInvalidConfiguration", "CUDA_ERROR_UNKNOWN", "invalid configuration argument";
    INVALID_SYMBOL = 13, "cudaErrorInvalidSymbol", "CUDA_ERROR_UNKNOWN", "invalid device symbol";
    INVALID_DIRECTION = 21, "cudaErrorInvalidMemcpyDirection", "CUDA_ERROR_UNKNOWN",
        "invalid copy direction for memcpy";
    MISSING_CONFIGURATION = 52, "cudaErrorMissingConfiguration", "CUDA_ERROR_UNKNOWN",
        "__global__ function call is not configured";
    INVALID_FUNCTION = 98, "cudaErrorInvalidDeviceFunction", "CUDA_ERROR_UNKNOWN", "invalid device function";
    INVALID_DEVICE = 101, "cudaErrorInvalidDevice", "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal";
    INVALID_IMAGE = 200, "cudaErrorInvalidKernelImage", "CUDA_ERROR_INVALID_IMAGE",
        "device kernel image is invalid";
    INVALID_CONTEXT = 201, "cudaErrorDeviceUninitialized", "CUDA_ERROR_INVALID_CONTEXT", "invalid device context";
    NO_BINARY = 209, "cudaErrorNoKernelImageForDevice", "CUDA_ERROR_NO_BINARY_FOR_GPU",
        "no kernel image is available for execution on the device";
    INVALID_PTX = 218, "cudaErrorInvalidPtx", "CUDA_ERROR_INVALID_PTX",
        "a PTX JIT compilation failed";
    INVALID_HANDLE = 400, "cudaErrorInvalidResourceHandle", "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle";
    NOT_FOUND = 500, "cudaErrorSymbolNotFound", "CUDA_ERROR_NOT_FOUND", "named symbol not found";
    NOT_READY = 600, "cudaErrorNotReady", "CUDA_ERROR_NOT_READY", "device not ready";
    ILLEGAL_ADDRESS = 700, "cudaErrorIllegalAddress", "CUDA_ERROR_ILLEGAL_ADDRESS",
        "an illegal memory access was encountered";
    OUT_OF_RESOURCES = 701, "cudaErrorLaunchOutOfResources", "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
        "too many resources requested for launch";
    TIMEOUT = 702, "cudaErrorLaunchTimeout", "CUDA_ERROR_LAUNCH_TIMEOUT",
        "the launch timed out and was terminated";
    ASSERT = 710, "cudaErrorAssert", "CUDA_ERROR_ASSERT", "device-side assert triggered";
    ALREADY_REGISTERED = 712, "cudaErrorHostMemoryAlreadyRegistered",
        "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "part or all of the requested memory range is already mapped";
    NOT_REGISTERED = 713, "cudaErrorHostMemoryNotRegistered", "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED",
        "pointer does not correspond to a registered memory region";
    MISALIGNED = 716, "cudaErrorMisalignedAddress", "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address";
    LAUNCH_FAILED = 719, "cudaErrorLaunchFailure", "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure";
    COOPERATIVE_TOO_LARGE = 720, "cudaErrorCooperativeLaunchTooLarge",
        "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE", "too many blocks in cooperative launch";
    NOT_SUPPORTED = 801, "cudaErrorNotSupported", "CUDA_ERROR_NOT_SUPPORTED", "operation not supported";
    UNKNOWN = 999, "cudaErrorUnknown", "CUDA_ERROR_UNKNOWN", "unknown error";
}

impl Status {
    /// The code of what a call came to.
    pub fn of(call: Call) -> i32 {
        call.map_or_else(|status| status.0, |()| 0)
    }

    /// Whether a kernel did something wrong, of which a later call tells.
    pub fn is_of_a_launch(self) -> bool {
        let all = [Status::ILLEGAL_ADDRESS, Status::MISALIGNED, Status::ASSERT, Status::LAUNCH_FAILED, Status::TIMEOUT];
        all.contains(&self)
    }

    fn row(self) -> Option<&'static Row> {
        ROWS.iter().find(|row| row.0 == self.0)
    }

    /// Its name in the runtime.
    pub fn runtime_name(self) -> &'static str {
        self.row().map_or("unrecognized error code", |row| row.1)
    }

    /// Its name in the driver, where it has one.
    pub fn driver_name(self) -> Option<&'static str> {
        self.row().map(|row| row.2)
    }

    /// What it means, as both libraries say it.
    pub fn text(self) -> &'static str {
        self.row().map_or("unrecognized error code", |row| row.3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_told_apart() {
        assert!(ROWS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(Status::MISALIGNED.runtime_name(), "cudaErrorMisalignedAddress");
        assert_eq!(Status(12345).text(), "unrecognized error code");
        assert_eq!(Status(12345).driver_name(), None);
    }
}
