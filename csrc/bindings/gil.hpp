// Releasing and acquiring the GIL, and calling Python, in C++ frames that must not be unwound.
//
// When the interpreter exits, CPython before 3.14 terminates every other thread that asks for the GIL with
// pthread_exit(). glibc implements that by unwinding the thread's stack, and the first noexcept function or
// destructor on it aborts the whole process. Here such a thread sleeps until the process is gone instead, as
// in 3.14.
#pragma once

#include <Python.h>
#include <unistd.h>

#include <utility>

#if defined(__GLIBCXX__)
#include <cxxabi.h>
#endif

namespace fastlog::bindings {

/// Returns `call()`, which may run Python code or wait for the GIL; never unwound by pthread_exit().
template <class Call>
decltype(auto) python_call(Call&& call) {
#if defined(__GLIBCXX__)
    try {
        return std::forward<Call>(call)();
    } catch (abi::__forced_unwind&) {
        for (;;) ::pause();
    }
#else
    return std::forward<Call>(call)();
#endif
}

/// Releases the GIL while in scope.
class GilReleased {
  public:
    GilReleased() noexcept : state_(PyEval_SaveThread()) {}
    ~GilReleased() {
        python_call([this] { PyEval_RestoreThread(state_); });
    }
    GilReleased(const GilReleased&) = delete;
    GilReleased& operator=(const GilReleased&) = delete;

  private:
    PyThreadState* state_;
};

/// Holds an object's `mutex` while in scope, where there is no GIL; no Python code may run meanwhile.
template <class Object>
class ObjectLocked {
  public:
#ifdef Py_GIL_DISABLED
    explicit ObjectLocked(Object& one) noexcept : one_(one) { PyMutex_Lock(&one_.mutex); }
    ~ObjectLocked() { PyMutex_Unlock(&one_.mutex); }
    ObjectLocked(const ObjectLocked&) = delete;
    ObjectLocked& operator=(const ObjectLocked&) = delete;

  private:
    Object& one_;
#else
    explicit ObjectLocked(Object&) noexcept {}
#endif
};

}  // namespace fastlog::bindings
