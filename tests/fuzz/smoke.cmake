# Makes the seeds and runs one fuzzer over them for 2000 inputs.
string(REGEX REPLACE "^fuzz_" "" corpus "${NAME}")
file(REMOVE_RECURSE "${FOLDER}")
execute_process(COMMAND "${SEEDS}" "${FOLDER}" COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND "${FUZZER}" -runs=2000 -seed=1 "${FOLDER}/${corpus}" COMMAND_ERROR_IS_FATAL ANY)
