# How tests/crash and tests/sim compile csrc/core: included by their Makefiles, which set VARIANT, OPTIMIZED (of the
# plain variant), and BUILD. CSRC names a patched copy of csrc when a mutations.py asks whether the tests notice.

CXX ?= g++
CSRC ?= $(ROOT)/csrc
# Absolute, as the tests give it: what was built by hand is known to them.
override BUILD := $(abspath $(BUILD))

CXXFLAGS_COMMON := -std=c++20 -pthread -g1 -Wall -Wextra -Wpedantic -Wshadow -Wconversion \
  -Wno-sign-conversion -Wnon-virtual-dtor -Werror -fvisibility=hidden
CPPFLAGS_ALL := -I$(CSRC) -I. -DFASTLOG_KILL_POINTS -MMD -MP

FLAGS_plain := $(OPTIMIZED)
FLAGS_asan := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all \
  -D_GLIBCXX_ASSERTIONS
FLAGS_tsan := -O1 -fno-omit-frame-pointer -fsanitize=thread
FLAGS := $(if $(filter $(VARIANTS),$(VARIANT)),$(FLAGS_$(VARIANT)))
ifeq ($(FLAGS),)
$(error VARIANT=$(VARIANT): use one of $(VARIANTS))
endif

.DELETE_ON_ERROR:

# Flags: a change rebuilds.
FLAGS_FILE := $(BUILD)/flags
FLAGS_NOW := $(CXX) $(CXXFLAGS_COMMON) $(FLAGS) $(CXXFLAGS)
.PHONY: force
$(FLAGS_FILE): force
	@mkdir -p $(BUILD)
	@echo '$(FLAGS_NOW)' | cmp -s - $@ || echo '$(FLAGS_NOW)' > $@

$(BUILD)/%.o: %.cpp $(FLAGS_FILE)
	@mkdir -p $(@D)
	@$(CXX) $(CXXFLAGS_COMMON) $(FLAGS) $(CXXFLAGS) $(CPPFLAGS_ALL) -c $< -o $@

$(BUILD)/core/%.o: $(CSRC)/core/%.cpp $(FLAGS_FILE)
	@mkdir -p $(@D)
	@$(CXX) $(CXXFLAGS_COMMON) $(FLAGS) $(CXXFLAGS) $(CPPFLAGS_ALL) -c $< -o $@
