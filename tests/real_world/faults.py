"""What real users' inputs, clients and hosts broke once, by the numbers of the list of faults, with its tests."""

PREPARATION, IMAGES, MODELS, TRACKING = (
    "tests/pipelines/preparation",
    "tests/resnet/images",
    "tests/pipelines/models",
    "tests/pipelines/tracking",
)
HOST, CLUSTER, HOSTS = "tests/resnet/host", "tests/pipelines/cluster", "tests/real_world/test_hosts_rows.py"
TRAINING_ROWS, GUARDS = "tests/real_world/test_training_rows.py", "tests/pipelines/training/guards"
HAPROXY, DEPLOY = "tests/serve/haproxy", "tests/jobs/test_deploy_best.py"
CLIENTS = "tests/serve/test_endpoint_clients_rows.py"

# row: (what it is about, its tests)
FAULTS: dict[int, tuple[str, tuple[str, ...]]] = {
    1: (
        "progressive JPEGs with repeated scans",
        (
            f"{IMAGES}/checks/test_jpeg_scans.py",
            "tests/serve/inference/test_upload_checks.py::test_repeated_scans_are_answered_413_at_once",
            f"{PREPARATION}/test_image_encoding.py::test_repeated_scans_are_refused_by_name",
        ),
    ),
    2: (
        "12 and 16 bits of grey",
        (
            f"{IMAGES}/test_grey_range.py",
            f"{PREPARATION}/test_image_encoding.py::test_a_range_is_kept_in_the_manifest_and_applied_once",
            "tests/serve/inference/test_classifier.py::test_deep_grey_is_served_by_the_range_of_the_training",
        ),
    ),
    3: ("links, loops, special files", (f"{PREPARATION}/discovery/test_folder_walk.py",)),
    4: ("system and hidden folders", (f"{PREPARATION}/discovery/test_passing_over.py",)),
    5: (
        "WebDataset members with two dots",
        (f"{PREPARATION}/formats/test_webdataset_labels.py::test_members_with_two_dots_are_read",),
    ),
    6: (
        "Parquet of the hub",
        (f"{PREPARATION}/formats/test_parquet_files.py", f"{PREPARATION}/formats/test_parquet_columns.py"),
    ),
    7: (
        "names that are not UTF-8",
        (f"{PREPARATION}/formats/test_class_folders.py::test_names_that_are_not_utf8_are_prepared_and_shown",),
    ),
    8: (
        "Kaggle, tiny-imagenet, capitals, no split, empty classes",
        (
            f"{PREPARATION}/formats/test_flat_validation.py",
            f"{PREPARATION}/discovery/test_split_folders.py",
            f"{PREPARATION}/splits/test_drawn_splits.py",
            f"{PREPARATION}/test_listing.py::test_an_empty_class_is_refused_and_kept_by_an_option",
        ),
    ),
    9: ("EXIF orientation", (f"{IMAGES}/test_image_orientation.py",)),
    10: (
        "compiled, Lightning's and DDP's weights",
        (f"{MODELS}/test_weight_files.py::test_weights_in_any_wrapping_give_torchvisions_logits",),
    ),
    11: (
        "training checkpoints of torchvision, without running code",
        (
            f"{MODELS}/test_weight_files.py::test_an_object_that_would_run_code_is_named",
            f"{MODELS}/test_by_name.py::test_weights_that_could_run_code_are_refused",
        ),
    ),
    12: ("the weights' own preprocessing", (f"{MODELS}/test_preprocessing.py",)),
    13: ("a checkpoint in a bucket is served", ("tests/jobs/test_bucket_to_endpoint.py",)),
    14: (
        "MLflow answers with an error",
        (f"{TRACKING}/test_model_registry.py::test_no_alias_moves_and_no_canary_ends_on_an_error_of_the_store",),
    ),
    15: (
        "an apostrophe in a path",
        (f"{TRACKING}/test_mlflow_runs.py::test_an_apostrophe_in_the_storage_is_recorded_and_found_again",),
    ),
    16: (
        "deleted experiments, models, versions, aliases",
        (
            f"{TRACKING}/test_mlflow_runs.py::test_a_deleted_experiment_is_told_before_the_training_with_the_way_back",
            f"{TRACKING}/test_model_registry.py::"
            "test_a_deleted_model_version_or_alias_is_told_and_the_next_training_registers_anew",
        ),
    ),
    17: (
        "the true reason of a registry that does not answer",
        (
            f"{TRACKING}/test_mlflow_store.py::test_a_registry_that_refuses_is_told_as_such",
            f"{MODELS}/test_canary_alias.py::test_an_error_of_the_store_is_one_sentence",
        ),
    ),
    18: (
        "addresses, credentials, hosts of MLflow",
        (
            f"{TRACKING}/test_mlflow_store.py",
            f"{TRACKING}/test_job_environment.py",
            f"{TRACKING}/test_mlflow_runs.py::test_params_and_tags_have_no_credentials",
        ),
    ),
    19: (
        "MLflow's own variables and pyfunc",
        (
            f"{TRACKING}/test_mlflow_runs.py::test_mlflows_own_variables_say_experiment_run_and_parent",
            f"{TRACKING}/test_mlflow_model.py::test_mlflow_loads_it_and_gives_the_endpoints_numbers",
            f"{TRACKING}/test_mlflow_model.py::test_nothing_in_the_artifact_is_code",
        ),
    ),
    20: ("clients of /v2, HEAD, forms, gzip (rows 20 to 23)", (CLIENTS,)),
    28: ("missing parts of a numbered set", (f"{PREPARATION}/discovery/test_numbered_parts.py",)),
    29: (
        "duplicates within and across splits",
        (f"{PREPARATION}/splits/test_duplicates.py::test_duplicates_are_counted_and_told_by_kind",),
    ),
    30: (
        "edited manifests",
        (
            "tests/pipelines/shards/test_manifest.py::test_an_edited_manifest_is_refused_with_its_own_sentence",
            "tests/pipelines/shards/test_manifest.py::test_a_shard_that_is_a_link_out_of_the_folder_is_refused",
            f"{PREPARATION}/test_prepare.py::test_counts_that_were_edited_together_are_found_by_verification",
        ),
    ),
    31: (
        "images that are encoded again stay upright",
        (f"{PREPARATION}/test_image_encoding.py::test_an_image_is_encoded_again_upright",),
    ),
    32: (
        "damaged development kits and lists",
        (
            f"{PREPARATION}/formats/test_tar_archives.py::test_a_damaged_development_kit_is_one_sentence",
            f"{PREPARATION}/formats/test_tar_archives.py::test_a_damaged_file_of_the_kit_is_named",
            f"{PREPARATION}/test_listing.py::test_lists_of_classes_as_windows_writes_them",
            f"{PREPARATION}/discovery/test_passing_over.py::test_tables_beside_images_are_passed_over_at_the_listing",
        ),
    ),
    33: (
        "labels in JSON, timm's tars",
        (
            f"{PREPARATION}/formats/test_webdataset_labels.py::test_labels_in_json_are_read",
            f"{PREPARATION}/formats/test_webdataset_labels.py::test_timms_tars_of_class_folders_and_a_tar_a_class",
        ),
    ),
    34: ("one table of kinds", (f"{IMAGES}/checks/test_image_kinds.py",)),
    35: (
        "damaged shards, full disks",
        (f"{PREPARATION}/test_repair.py", f"{PREPARATION}/test_free_space.py"),
    ),
    36: (
        "what is given wins over the recipe's own",
        (
            "tests/pipelines/test_command_line.py::test_the_length_that_is_given_wins_over_the_recipes_own",
            "tests/pipelines/test_command_line.py::test_two_lengths_are_one_too_many",
        ),
    ),
    37: (
        "checkpoints of other trainings",
        (
            f"{TRAINING_ROWS}::test_37_a_checkpoint_past_the_end_is_refused_by_the_job",
            f"{GUARDS}/test_starting_point.py",
        ),
    ),
    38: (
        "causes that stay, such as a full disk",
        (
            f"{GUARDS}/test_lasting_causes.py",
            f"{MODELS}/test_checkpoint_store.py::"
            "test_a_full_disk_is_told_and_the_same_checkpoint_is_written_once_there_is_room",
        ),
    ),
    39: ("Ctrl-C in a running training", (f"{GUARDS}/test_save_on_stop.py", "tests/pipelines/test_stop_signals.py")),
    40: (
        "a refused command leaves the folder",
        (f"{TRAINING_ROWS}::test_40_a_refused_command_leaves_the_folder_to_the_right_one",),
    ),
    41: (
        "two runs at once in one folder",
        (
            f"{GUARDS}/test_run_holder.py",
            f"{TRAINING_ROWS}::test_41_the_same_command_copied_with_other_workers_is_told_who_trains_there",
        ),
    ),
    42: (
        "values and places that cannot be",
        (
            f"{TRAINING_ROWS}::test_42_an_infinite_lr_is_refused_before_anything_starts",
            f"{TRAINING_ROWS}::test_42_a_storage_that_cannot_be_is_one_sentence",
            f"{TRAINING_ROWS}::test_42_a_checkpoint_that_cannot_be_read_is_named",
            f"{TRAINING_ROWS}::test_42_errors_of_libraries_say_where_they_came_through",
        ),
    ),
    43: (
        "reports of nothing and of one epoch",
        (
            "tests/jobs/test_write_report.py::test_a_report_of_nothing_is_a_sentence",
            f"{TRAINING_ROWS}::test_43_one_epoch_is_a_point_beside_its_run",
        ),
    ),
    44: (
        "a version outlives the run's folder",
        (f"{TRACKING}/test_mlflow_model.py::test_a_version_outlives_the_runs_folder",),
    ),
    45: (
        "champion by exact figures and by data set",
        (
            f"{TRACKING}/test_model_registry.py::test_the_champion_moves_only_if_strictly_better_on_the_same_data",
            f"{TRACKING}/test_model_registry.py::test_another_data_set_gets_a_model_and_a_champion_of_its_own",
            "tests/pipelines/test_run.py::test_a_run_of_its_own_name_has_a_folder_of_its_own",
        ),
    ),
    46: (
        "MLflow is asked first, secrets are never printed",
        (
            f"{TRACKING}/test_mlflow_store.py::"
            "test_an_address_that_mlflow_does_not_take_is_one_sentence_before_the_training",
            f"{TRACKING}/test_mlflow_store.py::test_a_password_in_the_address_is_refused_and_not_repeated",
        ),
    ),
    47: ("MLflow's pages", (f"{TRACKING}/test_mlflow_model.py::test_mlflows_pages_show_the_run",)),
    52: (
        "an end in order, of one process and of a group; more orders: benchmarks/reliability/survival.py",
        (
            f"{HAPROXY}/test_front_control.py",
            f"{HAPROXY}/test_front_keeper.py::test_signals_to_all_at_once_end_nothing",
            f"{DEPLOY}::test_the_model_is_served_and_followed_until_told_to_stop",
        ),
    ),
    53: (
        "no order of deaths leaves a port or a token",
        (
            f"{HAPROXY}/test_front_keeper.py::test_the_end_of_ray_ends_all_and_removes_the_folder_with_the_token",
            f"{HAPROXY}/test_front_keeper.py::test_where_serve_is_ended_on_a_ray_that_goes_on_the_port_is_free",
            f"{HOST}/test_temporary_folder.py",
            f"{DEPLOY}::test_the_model_is_served_and_followed_until_told_to_stop",
        ),
    ),
    54: ("mistakes that only a replica would see", ("tests/serve/test_deploy_checks.py",)),
    55: (
        "replicas' lines reach the job",
        (
            "tests/serve/test_job_log.py",
            f"{HAPROXY}/test_front_config.py::test_what_no_replica_saw_is_a_line_of_json",
            f"{DEPLOY}::test_the_model_is_served_and_followed_until_told_to_stop",
        ),
    ),
    56: (
        "nothing listens but what was asked",
        (
            f"{HAPROXY}/test_front_config.py::test_nothing_listens_but_what_was_asked",
            f"{HAPROXY}/test_front_config.py::test_what_the_installed_ray_writes_becomes_a_valid_configuration",
            f"{DEPLOY}::test_the_model_is_served_and_followed_until_told_to_stop",
        ),
    ),
    57: (
        "private folders and files of keys",
        (
            f"{CLUSTER}/test_private_ray.py",
            f"{HOST}/test_temporary_folder.py",
            "tests/serve/test_deploy_checks.py::"
            "test_a_file_of_keys_that_others_can_change_is_refused_and_one_they_can_read_is_told",
        ),
    ),
    58: (
        "HAProxy that dies is back; 503 where there is no route",
        (
            f"{HAPROXY}/test_front_keeper.py::test_what_is_killed_is_back_at_once",
            f"{HAPROXY}/test_front_keeper.py::test_without_ray_s_actor_it_goes_on_and_the_next_actor_finds_it",
            f"{HAPROXY}/test_front_config.py::test_answers_of_haproxy_are_problem_details_with_the_id",
        ),
    ),
    59: (
        "a stopped replica",
        (
            f"{HAPROXY}/test_front_config.py::test_a_stopped_replica_is_passed_over_and_what_it_held_goes_to_another",
            f"{HAPROXY}/test_front_config.py::test_where_all_replicas_are_stopped_the_answer_is_an_error_in_time",
        ),
    ),
    61: (
        "strangers and the way of large bodies",
        (
            f"{HAPROXY}/test_front_config.py::test_a_key_is_asked_for_before_the_body",
            f"{HAPROXY}/test_front_config.py::test_one_client_cannot_hold_the_way_of_large_bodies",
            f"{HAPROXY}/test_front_keys.py",
        ),
    ),
    60: ("OpenAPI, texts, errors by image, paths of others (rows 60, 63, 65 to 67)", (CLIENTS,)),
    24: (
        "RAY_ADDRESS that leads nowhere",
        (f"{CLUSTER}/test_cluster_address.py", f"{CLUSTER}/test_cluster_welcome.py"),
    ),
    25: (
        "cores by the container's quota",
        (
            f"{HOST}/test_cpu_quota.py",
            f"{HOSTS}::test_half_a_core_is_one_cpu_to_ray",
            f"{HOSTS}::test_taskset_counts_for_ray",
        ),
    ),
    26: (
        "users without a name, proxies, temporary folders, what ends leave",
        (
            f"{HOST}/test_home_folder.py",
            f"{HOST}/test_proxy_exceptions.py",
            f"{HOST}/test_temporary_folder.py",
            f"{CLUSTER}/test_private_ray.py",
            f"{HOSTS}::test_a_private_ray_runs_there",
        ),
    ),
    27: (
        "a reader that has closed the pipe",
        (
            f"{HOST}/test_closed_pipe.py",
            "tests/pipelines/test_command_line.py::test_help_that_is_cut_off_by_head_ends_quietly",
        ),
    ),
    48: (
        "a head that asks for a token, and ray job submit as it stands",
        (
            f"{CLUSTER}/test_cluster_address.py::test_the_token_that_a_cluster_asks_for",
            "tests/jobs/test_train_imagenet.py::test_the_demonstration_reaches_its_accuracy_by_the_literal_command",
        ),
    ),
    49: (
        "progress lines that are true",
        (
            "tests/pipelines/progress/test_run_clock.py",
            "tests/pipelines/progress/test_time_left.py",
            f"{MODELS}/test_pretrained_weights.py::test_weights_that_do_not_fit_are_counted_and_a_few_named",
        ),
    ),
    50: ("a package with a command", ("tests/resnet_ray/test_package.py", "tests/resnet_ray/test_mlflow_loader.py")),
    62: (
        "make and plain jobs look in one place",
        (
            f"{HOST}/test_home_folder.py::test_of_a_checkout_it_is_where_make_puts_it",
            f"{HOST}/test_home_folder.py::test_results_that_lie_elsewhere_are_found",
            "tests/docs/test_commands.py::test_a_command_names_what_is_there",
        ),
    ),
    85: ("statuses and lines of a submitted job", (f"{CLUSTER}/test_job_submission.py",)),
}
