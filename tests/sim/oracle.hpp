// Knows what was acknowledged, promised and taken away, and judges what is in the files.
//
// Each record carries its writer, its number and a value that follows from both. What must hold:
//   - an acknowledged record is in the files exactly once, unless a user took the bytes that had it, or its
//     process was killed when its ring was gone or never was in a file, or the power failed before its line
//     was forced to the disk;
//   - what flush() and close() promised is so when they return, and later;
//   - a stream's numbers have no gap and none twice, where nothing was taken;
//   - no file has two writers, a torn or damaged line, or records out of order; no foreign file changes;
//   - a view of dead rings shows, to the byte, what recovery then makes;
//   - no ring is left behind, none of a process that is well goes to quarantine, and nobody hangs;
//   - a copy loses no line that it had.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/recovery.hpp"
#include "core/ring_view.hpp"
#include "disk.hpp"
#include "lines.hpp"

namespace sim {

class World;
class Writer;
class SimFiles;
struct Process;

struct Facts {
    unsigned number = 0;
    std::uint64_t acked = 0;
    std::uint64_t promised = 0;  // the first ones are in the files
    std::uint64_t durable = 0;   // and these were forced to the disk
    bool killed = false;
    bool closed = false;
    bool power = false;    // killed by a power loss
    bool ringless = true;  // no ring in a file that a recovery would find
    Node* ring = nullptr;
    std::string path;  // of the ring
};

class Oracle {
  public:
    explicit Oracle(World& world) : world_(world) {}

    Facts& add_writer(unsigned number);
    /// Where a recorder's ring is, and which directory it took for the run.
    void note_ring(Facts& facts, const std::string& path, std::uint64_t directory);
    void note_death(Process& process);
    void note_power_loss();
    /// A name has gone, and with it a file.
    void note_removed(Node& node, const std::string& name);
    void note_cut(Node& node, std::size_t size);
    void note_renamed(Node& node) { renamed_.emplace(&node, node.bytes->size()); }
    void note_moved() { moved_ = true; }
    void note_foreign(Node& node);
    void note_copy_begun(const std::string& run) {
        if (!copies_.try_emplace(run).second) overlaid_.insert(run);
    }
    void note_copy(const std::string& run);
    void promise(Facts& facts, std::uint64_t acked, const char* what);

    void foresee(const std::string& run, SimFiles& files);
    void compare(const std::string& run, const std::vector<fastlog::RecoveryReport>& reports);
    void note_left(const std::string& run, const fastlog::RecoveryReport& report);
    void judge();

    std::uint64_t acked() const noexcept;

  private:
    void excuse(std::string_view bytes);
    bool is_copy(const std::string& run) const { return copies_.contains(run); }
    std::set<Key> in_files();
    void judge_run(const std::string& run, Node& node, std::map<Key, unsigned>& count);
    void judge_file(const std::string& path, Node& file, bool copy, std::vector<Line>& lines);
    void judge_numbers(const std::string& run, std::map<std::string, std::vector<Line>>& streams);
    void judge_writers(const std::map<Key, unsigned>& count);
    void judge_renamed();
    bool careless(const Facts& facts) const;
    bool careless() const;
    bool moved_lines(const Key& key) const;
    void tell(const char* who, const fastlog::RecoveryReport& report) const;

    World& world_;
    std::map<std::uint64_t, Facts> writers_;
    std::set<Key> excused_;
    std::set<const Node*> cut_;
    std::map<Node*, std::size_t> renamed_;  // and how long they were then
    std::vector<std::pair<Node*, std::string>> foreign_;
    std::map<std::string, std::set<Key>> copies_;
    std::set<std::string> overlaid_;
    bool power_lost_ = false;
    bool moved_ = false;  // a run was renamed
    bool taken_ = false;  // something was, of files or rings
    std::vector<std::unique_ptr<fastlog::RingView>> views_;
    std::map<std::string, std::string> foreseen_;
    std::set<std::string> recovered_;  // rings, when the world had come to rest
};

}  // namespace sim
