// A process that records: the core's ring, renderer, batch writer and files, driven as Recorder and FlushThread
// drive them, step by step.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/key_table.hpp"
#include "core/live_ring.hpp"
#include "world.hpp"

namespace sim {

class Writer {
  public:
    Writer(World& world, Process& process, unsigned number, bool worker);
    void live();
    /// Neither thread is within a call of the recorder that has files to do with.
    bool resting() const noexcept { return resting_ && !closing_; }

    const unsigned number;

  private:
    // Tells its writer how far it is committed.
    class Ring final : public fastlog::LiveRing {
      public:
        Ring(Writer& writer, fastlog::MpscRing& ring, fastlog::RingMemory& memory)
            : LiveRing(ring, memory), writer_(writer) {}

      private:
        void committed(const fastlog::CommitSlot& slot) noexcept override {
            writer_.committed_ = slot.position;
        }
        Writer& writer_;
    };

    void open();
    void record();
    bool put(fastlog::RecordKind kind, fastlog::Stream stream, const void* payload,
             std::size_t size);
    void put_drop_markers();
    bool wait_written(std::uint64_t position, std::int64_t timeout_ns);
    void flush();
    void close();
    void flush_loop();
    bool attend();
    bool drain();
    void add_final_drops();
    void note_durable(std::uint64_t position);
    bool alive() const noexcept { return !process_.dead; }

    World& world_;
    Process& process_;
    Facts& facts_;
    const bool worker_;
    std::uint64_t seed_;
    fastlog::Fsync fsync_;
    std::size_t ring_bytes_;
    std::uint64_t segment_bytes_;
    unsigned records_;

    std::unique_ptr<fastlog::StreamFiles> sink_;
    std::unique_ptr<fastlog::RingMemory> memory_;
    std::unique_ptr<fastlog::MpscRing> ring_;
    std::unique_ptr<fastlog::KeyTable> keys_;
    std::unique_ptr<fastlog::LineRenderer> renderer_;
    std::unique_ptr<Ring> source_;
    std::unique_ptr<fastlog::BatchWriter> batches_;
    std::uint32_t key_set_ = 0;
    std::vector<std::uint64_t> ends_;  // of the acknowledged records, in the ring
    std::uint64_t committed_ = 0;
    std::uint64_t final_tail_ = 0;
    bool resting_ = false;
    bool woken_ = false;
    bool closing_ = false;
    bool done_ = false;
    std::int64_t backoff_ns_ = 0;
    std::int64_t synced_ns_ = 0;
};

void start_writer(World& world, bool worker);

}  // namespace sim
