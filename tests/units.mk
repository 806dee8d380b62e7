# Which files of csrc are compiled as one: by core.mk, and in CI by cpp/Makefile. CSRC and BUILD are set.
# It takes a quarter of the time. UNITY=no: each by itself, for who changes single files.

# $(call objects,NAME,FILES): of these files, which are compiled as NAME.
objects = $(if $(filter yes,$(UNITY)),$(BUILD)/$(1).o,$(2:%.cpp=$(BUILD)/%.o))
# $(eval $(call as_one,NAME,FILES)): how that comes about.
define as_one
$(BUILD)/$(1).cpp: force
	@mkdir -p $(BUILD)
	@printf '#include "%s"\n' $(2) | cmp -s - $$@ || printf '#include "%s"\n' $(2) > $$@
endef

files_of = $(patsubst $(CSRC)/%,%,$(sort $(wildcard $(CSRC)/$(1)/*.cpp)))

# What the simulation has of its own, and what records without it.
RECORDING := $(addsuffix .cpp,$(addprefix core/,machine fork_watch kill_point recorder flush_thread collector))
# What has names in common with the others.
APART := $(addsuffix .cpp,$(addprefix core/,ring_image shadow_files unfinished))
READER_APART := reader/frame.cpp reader/scan.cpp

CORE := $(filter-out $(RECORDING) $(APART),$(call files_of,core))
READER := $(filter-out $(READER_APART),$(call files_of,reader))
$(eval $(call as_one,core_most,$(CORE)))
$(eval $(call as_one,core_rest,$(APART)))
$(eval $(call as_one,core_recording,$(RECORDING)))
$(eval $(call as_one,reader_most,$(READER)))
$(eval $(call as_one,reader_rest,$(READER_APART)))
