#include "flushing.hpp"
#include "pool.hpp"

#include <pthread.h>
// ThreadSanitizer does not see how an OpenMP that it did not instrument waits, so under it
// the threads are our own.
#if __has_include(<link.h>) && !defined(__SANITIZE_THREAD__)
#define ELISION_FINDS_TEAM
#include <dlfcn.h>
#include <link.h>
#endif

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "bounds.hpp"

namespace elision {
namespace {

// One parallel call. Workers that come late find no task left and leave it alone.
struct Job {
  Job(const std::function<void(int)>& call, int count) : work(&call), tasks(count) {}

  const std::function<void(int)>* work;
  int tasks;
  unsigned mode = FloatMode::here();  // the caller's, in which every thread computes
  std::atomic<int> next{0};
  std::atomic<int> done{0};
  std::mutex mutex;
  std::condition_variable finished;
  std::exception_ptr error;

  void run() {
    FloatMode callers(mode);
    for (int task; (task = next.fetch_add(1)) < tasks;) {
      try {
        (*work)(task);
      } catch (...) {
        std::lock_guard<std::mutex> hold(mutex);
        error = std::current_exception();
      }
      if (done.fetch_add(1) + 1 == tasks) {
        std::lock_guard<std::mutex> hold(mutex);
        finished.notify_all();
      }
    }
  }
};

class Pool {
 public:
  void run(int tasks, int threads, const std::function<void(int)>& work) {
    auto job = std::make_shared<Job>(work, tasks);
    int helpers = std::min(threads, tasks) - 1;
    {
      std::lock_guard<std::mutex> hold(mutex_);
      while (workers_ < helpers) {
        std::thread([this] { serve(); }).detach();
        ++workers_;
      }
      for (int i = 0; i < helpers; ++i) queue_.push_back(job);
    }
    wake_.notify_all();
    job->run();
    std::unique_lock<std::mutex> hold(job->mutex);
    job->finished.wait(hold, [&] { return job->done.load() == tasks; });
    if (job->error) std::rethrow_exception(job->error);
  }

 private:
  void serve() {
    for (;;) {
      std::shared_ptr<Job> job;
      {
        std::unique_lock<std::mutex> hold(mutex_);
        wake_.wait(hold, [&] { return !queue_.empty(); });
        job = std::move(queue_.back());
        queue_.pop_back();
      }
      job->run();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::shared_ptr<Job>> queue_;
  int workers_ = 0;
};

// Never destroyed: its threads wait on it until the process ends. A forked child has
// none of them, so it forgets the parent's pool and makes its own when it needs one.
std::atomic<Pool*> pool{nullptr};

Pool& the_pool() {
  static std::once_flag once;
  std::call_once(once, [] {
    pthread_atfork(nullptr, nullptr, [] { pool.store(nullptr); });
  });
  Pool* found = pool.load();
  if (found == nullptr) {
    auto* made = new Pool;
    if (pool.compare_exchange_strong(found, made)) return *made;
    delete made;  // another thread was first; no worker was started yet
  }
  return *found;
}

// GOMP_parallel(function, data, threads, flags): calls function(data) on every thread.
using Team = void (*)(void (*)(void*), void*, unsigned, unsigned);

Team find_team() {
  Team team = nullptr;
#if defined(ELISION_FINDS_TEAM)
  auto look = [](dl_phdr_info* loaded, size_t, void* found) {
    const char* name = std::strrchr(loaded->dlpi_name, '/');
    if (name == nullptr || std::strncmp(name, "/libgomp", 8) != 0) return 0;
    void* library = dlopen(loaded->dlpi_name, RTLD_NOW | RTLD_NOLOAD);
    if (library == nullptr) return 0;
    *static_cast<Team*>(found) = reinterpret_cast<Team>(dlsym(library, "GOMP_parallel"));
    return 1;
  };
  dl_iterate_phdr(look, &team);
#endif
  return team;
}

// Null where there is none, and in a forked child.
std::atomic<Team> team = [] {
  pthread_atfork(nullptr, nullptr, [] { team.store(nullptr); });
  return find_team();
}();

struct Buffer {
  float* data = nullptr;
  size_t floats = 0, bytes = 0;
  ~Buffer() { std::free(data); }
};

}  // namespace

void parallel(int tasks, int threads, const std::function<void(int)>& work) {
  if (threads <= 1 || tasks <= 1) {
    for (int task = 0; task < tasks; ++task) work(task);
    return;
  }
  Team run = team.load();
  if (run == nullptr) return the_pool().run(tasks, threads, work);
  Job job(work, tasks);
  run([](void* shared) { static_cast<Job*>(shared)->run(); }, &job,
      std::min(tasks, threads), 0);
  if (job.error) std::rethrow_exception(job.error);
}

float* scratch(int slot, size_t floats) {
  static thread_local Buffer buffers[SCRATCH_SLOTS];
  Buffer& buffer = buffers[slot];
  if (buffer.floats < floats) {
    std::free(buffer.data);
    buffer.floats = 0;
    size_t bytes = (floats * sizeof(float) + 4095) / 4096 * 4096;
    buffer.data = static_cast<float*>(std::aligned_alloc(4096, bytes));
    if (buffer.data == nullptr) throw std::bad_alloc();
    buffer.floats = floats;
    buffer.bytes = bytes;
  }
  bound(buffer.data, floats * sizeof(float), buffer.bytes);
  return buffer.data;
}

}  // namespace elision
